"""The whole chain on words and photographs that are installed with dptr: `dptr demo`.

Until the project has an encoder of its own to ship, the demo uses a small untrained one. Its text states still tell
tokens and positions apart, so a decoder can learn to read them: it spells held-out words whose tokens it has met in
other words. What an untrained encoder cannot show is reading pictures.
"""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from cache.errors import WrongUse
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from pipeline.photos import photos
from train.evaluate import evaluate, table
from train.options import PretrainOptions
from train.pretrain import pretrain

STEPS = 1800  # of 64 words: about two minutes on two cores

FIRST = """
old new royal city park lake river garden green blue red golden silver happy lucky sunny urban royal grand
little market harbour station church castle bridge mountain ocean island summer winter spring north south west
east central union liberty victoria albert windsor oxford paris london vienna berlin tokyo delhi
"""
SECOND = """
cafe bakery hotel bar pizza sushi grill kitchen books shop market motors taxi bank school college theatre
cinema museum pharmacy dental clinic salon barber laundry florist travel tours fitness yoga records music toys
shoes fashion jewellers optics phones computers furniture hardware garage parking station gallery lounge
"""
PHOTOGRAPHS = """
astronaut.png brick.png camera.png chelsea.png coffee.png coins.png grass.png gravel.png hubble_deep_field.jpg
moon.png motorcycle_left.png motorcycle_right.png retina.jpg rocket.jpg
"""


def signs() -> Iterator[str]:
    """What stands on signs: names of shops, house numbers and years, prices, opening hours, roads."""
    yield from (first + second for first, second in product(FIRST.split(), SECOND.split()))
    yield from (str(number) for number in [*range(1, 400), *range(1850, 2030)])
    yield from (f"${whole}.{cents:02}" for whole, cents in product(range(1, 30), (25, 49, 50, 75, 90, 95, 99)))
    yield from (f"{hour}:{minute:02}" for hour, minute in product(range(24), range(0, 60, 5)))
    yield from (f"{letter}{number}" for letter, number in product("ABM", range(1, 120)))


def photographs() -> Iterator[tuple[str, bytes]]:
    """Photographs out of scikit-image's package. WrongUse if it is not installed."""
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise WrongUse("the demo's photographs come with scikit-image: pip install 'dptr[demo]'.")
    folder = Path(package.origin).parent / "data"
    for name in PHOTOGRAPHS.split():
        if (folder / name).exists():
            yield from photos(str(folder / name))


def demo(out: Path, say: Callable[[str], None], steps: int = STEPS) -> str:
    """Embed, pre-train and evaluate under `out`, which is made anew; returns the table that ends the demo."""
    cache, run = out / "cache", out / "run"
    if out.exists() and any(p.name not in ("cache", "run") for p in out.iterdir()):
        raise WrongUse(f"{out} holds other things than a demo: choose another --out.")
    pictures = list(photographs())
    for folder in (cache, run):
        shutil.rmtree(folder, ignore_errors=True)
    encoder = Encoder("demo-small", "untrained:0")

    say("\n1/4 words: dptr embed-text signs.txt --corpus signs --model demo-small --pretrained untrained:0")
    embed_text(cache, encoder, collect(signs()), "signs", say)
    say("\n2/4 photographs: dptr embed-images photos/ --bank photos --model demo-small --pretrained untrained:0")
    embed_images(cache, encoder, pictures, len(pictures), "photos", say)
    say("\n3/4 pre-training: dptr pretrain --corpus signs --bank photos --depth 1 --batch 64 --out run")
    options = PretrainOptions(
        cache, ["signs"], run, bank="photos", depth=1, batch=64, steps=steps, lr=1.5e-3, held_out=0.1, eval_words=300
    )
    pretrain(options, say)
    say("\n4/4 evaluation: dptr evaluate run")
    done = evaluate(run)
    shown = sorted(done.readings)[:: max(1, len(done.readings) // 16)]
    lines = [f"{truth:24}{text:24}{'right' if truth == text else ''}".rstrip() for truth, text in shown]
    return "\n".join(
        [
            table(done, worst=0),
            "",
            f"{'held-out word':24}read from its memory",
            *lines,
            "",
            "These words were never trained on, their parts were. The encoder is small and UNTRAINED: this shows the",
            f"pipeline at work, and nothing about pictures. The cache and the run are in {out}.",
        ]
    )
