"""The whole chain on words and photographs that are installed with dptr: `dptr demo`.

The encoder is the one that comes with dptr. Its text states tell letters and tokens apart, so a decoder learns to spell
held-out words from them; and its pictures lie near their words, so drawn ones are found among a thousand.
"""

import io
import random
import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from itertools import product
from pathlib import Path

import numpy as np

from cache.errors import WrongUse
from cache.files import write_whole
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.photos import decode, photos
from train.evaluate import evaluate
from train.options import PretrainOptions
from train.pretrain import pretrain
from train.result import table
from wordclip.fonts import PILLOWS
from wordclip.render import render
from wordclip.show import nearest, sheet

STEPS = 1800  # of 64 words: about two minutes on two cores
DRAWN, CHOICE = 200, 1000  # words drawn, and words among which each is looked for

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
    """What stands on signs: names of shops in three cases, house numbers and years, prices, opening hours, roads."""
    names = [first + second for first, second in product(FIRST.split(), SECOND.split())]
    yield from (shown for name in names for shown in (name, name.capitalize(), name.upper()))
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
    """Embed, pre-train, evaluate and find under `out`, which is made anew; returns what ends the demo."""
    cache, run, drawn = out / "cache", out / "run", out / "pictures.png"
    if out.exists() and any(p not in (cache, run, drawn) for p in out.iterdir()):
        raise WrongUse(f"{out} holds other things than a demo: choose another --out.")
    pictures = list(photographs())
    for folder in (cache, run):
        shutil.rmtree(folder, ignore_errors=True)
    encoder = Encoder("wordclip", "shipped")

    say("\n1/5 words: dptr embed-text signs.txt --corpus signs")
    embed_text(cache, encoder, collect(signs()), "signs", say)
    say("\n2/5 photographs: dptr embed-images photos/ --bank photos")
    embed_images(cache, encoder, pictures, len(pictures), "photos", say)
    say("\n3/5 pre-training: dptr pretrain --corpus signs --bank photos --depth 1 --batch 64 --out run")
    options = PretrainOptions(
        cache, ["signs"], run, bank="photos", depth=1, batch=64, steps=steps, lr=1.5e-3, held_out=0.1, eval_words=300
    )
    pretrain(options, say)
    say("\n4/5 evaluation: dptr evaluate run")
    done = evaluate(run)
    shown = sorted((r.truth, r.text) for r in done.readings)[:: max(1, len(done.readings) // 16)]
    lines = [f"{truth:24}{text:24}{'right' if truth == text else ''}".rstrip() for truth, text in shown]
    say(f"\n5/5 pictures: {DRAWN} held-out words are drawn over the photographs and looked for among {CHOICE:,}")
    held_out = [r.truth for r in sorted(done.readings, key=lambda r: r.number)]
    found = _find_drawn(encoder, pictures, held_out, drawn)
    return "\n".join(
        [
            table(done, worst=0),
            "",
            f"{'held-out word':24}read from its memory",
            *lines,
            "",
            "The decoder never trained on these words, only on their parts, and never on a picture. The encoder knows",
            f"pictures: of {DRAWN} words drawn over photographs it finds {found} among {CHOICE:,}. They are in",
            f"{drawn}; the cache and the run are in {out}.",
        ]
    )


def _find_drawn(encoder: Encoder, pictures: list[tuple[str, bytes]], words: list[str], path: Path) -> int:
    """Draws the first DRAWN of `words` over `pictures`, finds each among CHOICE, writes a sheet; how many are right."""
    rng = random.Random(0)
    truths = words[:DRAWN]
    choice = list(dict.fromkeys([*truths, *rng.sample(sorted(set(signs())), CHOICE)]))[:CHOICE]
    grounds = [np.asarray(decode(data)) for _, data in pictures]
    shown = [render(word, [PILLOWS], grounds, rng) for word in truths]
    found = nearest(encoder, shown, choice)
    packed = io.BytesIO()
    sheet(shown, truths, found).save(packed, "PNG")
    write_whole(path, packed.getvalue())
    return sum(map(str.__eq__, found, truths))
