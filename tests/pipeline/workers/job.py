"""A driver and its workers as processes of their own, with shards so small that there are many."""

from pathlib import Path

import pipeline.embed_text as text_stage
import pipeline.neighbours as neighbours_stage
import pipeline.picture_shards as picture_stage
from cache.space import Space, open_space
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.neighbours import neighbours
from pipeline.workers.crew import Crew, Volunteers
from pipeline.workers.driver import Driver
from pipeline.workers.on_ray import RayCrew
from pipeline.workers.worker import work
from tests.helpers.pictures import picture

WORDS = [str(n) for n in range(1500)]
PICTURES = [*((f"{n}.png", picture(n)) for n in range(30)), ("broken.png", b"no picture"), ("again.png", picture(3))]


def drive(cache: Path, crew: Crew | None, words: list[str] = WORDS, pictures=PICTURES) -> None:
    """Words, pictures and a table of neighbours; without a crew, in this process."""
    text_stage.SHARD_BYTES = 1 << 17
    picture_stage.SHARD_BYTES, picture_stage.BATCH = 1 << 18, {"cpu": 4}
    neighbours_stage.SHARD = 400
    encoder = Encoder("wordclip", "untrained:1", precision="fp32", device="cpu")
    driver = Driver(crew, print) if crew else None
    embed_text(cache, encoder, collect(words), "words", print, elsewhere=driver)
    embed_images(cache, encoder, iter(pictures), None, "photos", print, elsewhere=driver)
    neighbours(open_space(cache), "words", "photos", 3, print, driver)


def drive_volunteers(cache: Path) -> None:
    """With whatever workers there are."""
    drive(cache, Volunteers(print))
    print("done", flush=True)


def serve(cache: Path, wait: float) -> None:
    """A worker, until a file `over` lies beside the cache and there has been no driver for `wait` seconds."""
    made = 0
    while not (cache.parent / "over").exists():  # a busy machine may take long to start a driver
        made += work(cache, None, lambda text: print(text, flush=True), wait, device="cpu")
    print(made)


def neighbours_on_ray(cache: Path, space: str) -> None:
    """A table found by a Ray cluster of two nodes, one of which dies after the first shard."""
    import ray
    from ray.cluster_utils import Cluster

    neighbours_stage.SHARD = 50
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=1)
    crew, tend = RayCrew(cluster.address, print), RayCrew.tend

    def tend_and_kill(self, made: int) -> None:
        tend(self, made)
        if made and node in cluster.list_all_nodes():
            cluster.remove_node(node, allow_graceful=False)

    RayCrew.tend = tend_and_kill
    print(neighbours(Space(cache / space), "numbers", "noise", None, print, Driver(crew, print)).new)
    assert not ray.is_initialized()
    cluster.shutdown()
