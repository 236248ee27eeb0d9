"""What tests share: a tiny real CLIP, a cache made with it, and the development data if it is there."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import settings

from tests.helpers import forks
from tests.helpers.pictures import picture

# in case a test's process writes through the installed command: never the hub
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("DPTR_CACHE", None)
# models here are so small that threads cost more than they compute, ten times as much where cores are shared
os.environ["OMP_NUM_THREADS"] = "1"
settings.register_profile(
    "dptr", deadline=None, max_examples=50
)  # how long an example takes says more of the machine than of the code
settings.load_profile("dptr")
# files that take longest come first, so that the processes that share the files end together
LONG = (
    "test_on_ray", "test_workers", "test_ranks", "test_readme", "test_faults", "test_training", "test_resume",
    "test_decoders", "test_pretrain", "test_finetune", "test_onnx", "test_every_kind", "test_embed", "test_gpu_kit",
    "test_real_data", "test_demo", "test_errors_page", "test_start", "test_earlier", "test_shipped", "test_index",
    "test_neighbours", "test_read", "test_compare", "test_embed_text", "test_evaluate",
)  # fmt: skip

TINY = {
    "embed_dim": 64,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 32, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
WORDS = ["street", "Hello", "hello", "1984", "cafe", "$4.99", "station", "a", "EXIT", "tomorrow", "12:30", "don't"]


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a GPU")


@pytest.fixture(scope="session", autouse=True)
def tiny_models(tmp_path_factory):
    """Registers `tiny`, `tiny-quickgelu`, `tiny-wide` (unequal widths) and some that cannot be used."""
    import open_clip

    forks.begin()  # where these models are unknown
    folder = tmp_path_factory.mktemp("models")
    bidirectional = {**TINY, "custom_text": True, "text_cfg": {**TINY["text_cfg"], "no_causal_mask": True}}
    average = {**TINY, "vision_cfg": {"image_size": [32, 128], "timm_model_name": "dptr_word_vit", "timm_pool": "avg"}}
    for name, config in {
        "tiny": TINY,
        "tiny-average": average,
        "tiny-attends": {**TINY, "vision_cfg": {**TINY["vision_cfg"], "attentional_pool": True, "head_width": 64}},
        "tiny-quickgelu": {**TINY, "quick_gelu": True},
        "tiny-wide": {**TINY, "embed_dim": 32},
        "tiny-word": {**TINY, "vision_cfg": {**TINY["vision_cfg"], "image_size": [16, 64], "patch_size": [4, 8]}},
        "tiny-bidirectional": bidirectional,
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="session")
def encoder(tiny_models):
    from pipeline.encoder import Encoder

    return Encoder("tiny", "untrained:1", precision="fp32")


@pytest.fixture(scope="session")
def full_encoder(tiny_models):
    from pipeline.encoder import Encoder

    return Encoder("tiny", "untrained:1", precision="fp32", layout="full")


@pytest.fixture
def say():
    """Collects what the user would be told."""
    lines: list[str] = []

    def collect(text: str) -> None:
        lines.append(text)

    collect.lines = lines
    return collect


@pytest.fixture(scope="session")
def cache(encoder, tmp_path_factory) -> Path:
    """A cache to read: corpus `numbers` (0..899), bank `noise` (5 pictures of 17 tokens) and its neighbours."""
    from cache.space import open_space
    from pipeline.embed_images import embed_images
    from pipeline.embed_text import embed_text
    from pipeline.labels import collect
    from pipeline.neighbours import neighbours

    folder = tmp_path_factory.mktemp("cache")
    embed_text(folder, encoder, collect(map(str, range(900))), "numbers", print)
    embed_images(folder, encoder, [(f"{n}.png", picture(n)) for n in range(5)], 5, "noise", print)
    neighbours(open_space(folder), "numbers", "noise", None, print)
    return folder


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data that is not part of the project."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the development data is not beside this checkout")
    return folder
