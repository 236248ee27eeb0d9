"""Runs the whole chain on words and photographs that are installed with dptr: `dptr demo`.

The encoder is the one that comes with dptr. Its text states tell letters and tokens apart, so a decoder learns to spell
held-out words from them. Its image features lie near those of the words, so drawn words are found among a thousand.
"""

import io
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from cache.errors import WrongUse
from cache.files import write_whole
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.pictures import decode
from sources.signs import photographs, signs
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.evaluate import evaluate
from train.reading.result import table
from wordclip.fonts import PILLOWS
from wordclip.render import render
from wordclip.show import nearest, sheet

STEPS = 900  # of 64 words: a minute or two on two cores of any processor
DRAWN, CHOICE = 200, 1000  # words drawn, and words to find each among


def demo(out: Path, say: Callable[[str], None], steps: int = STEPS) -> str:
    """Embed, pre-train, evaluate and retrieve in `out`, which is recreated; returns the demo's closing text."""
    cache, run, drawn = out / "cache", out / "run", out / "pictures.png"
    if out.exists() and any(p not in (cache, run, drawn) for p in out.iterdir()):
        raise WrongUse(f"{out} holds files that are not from a demo: choose another --out.")
    pictures = list(photographs())
    for folder in (cache, run):
        shutil.rmtree(folder, ignore_errors=True)
    encoder = Encoder("wordclip", "shipped")

    say("\n1/5 words: dptr embed-text signs.txt --corpus signs")
    embed_text(cache, encoder, collect(signs()), "signs", say)
    say("\n2/5 photographs: dptr embed-images photos/ --bank photos")
    embed_images(cache, encoder, pictures, len(pictures), "photos", say)
    say("\n3/5 pre-training: dptr pretrain --corpus signs --bank photos --decoder nrtr --depth 1 --batch 64 --out run")
    options = PretrainOptions(
        ["signs"],
        run,
        cache=cache,
        bank="photos",
        decoder="nrtr",  # reads left to right alone: parseq learns six orders at once, which takes six times as long
        depth=1,
        batch=64,
        steps=steps,
        lr=2e-3,
        held_out=0.1,
        eval_words=300,
    )
    pretrain(options, say)
    say("\n4/5 evaluation: dptr evaluate run")
    done = evaluate(run)
    shown = sorted((r.truth, r.text) for r in done.readings)[:: max(1, len(done.readings) // 16)]
    lines = [f"{truth:24}{text:24}{'right' if truth == text else ''}".rstrip() for truth, text in shown]
    say(f"\n5/5 pictures: drawing {DRAWN} held-out words over the photographs, finding each among {CHOICE:,} words")
    held_out = [r.truth for r in sorted(done.readings, key=lambda r: r.number)]
    found = _find_drawn(encoder, pictures, held_out, drawn)
    return "\n".join(
        [
            table(done, worst=0),
            "",
            f"{'held-out word':24}read from its memory",
            *lines,
            "",
            "The decoder was trained on parts of these words, never on the words themselves and never on a picture.",
            f"The encoder knows pictures: of {DRAWN} words drawn over photographs it finds {found} among {CHOICE:,}.",
            f"They are shown in {drawn}; the cache and the run are in {out}.",
        ]
    )


def _find_drawn(encoder: Encoder, pictures: list[tuple[str, bytes]], words: list[str], path: Path) -> int:
    """Draw the first DRAWN of `words` over `pictures`, find each among CHOICE, write a sheet; returns the hits."""
    rng = random.Random(0)
    truths = words[:DRAWN]
    choice = list(dict.fromkeys([*truths, *rng.sample(sorted(set(signs())), CHOICE)]))[:CHOICE]
    grounds = [np.asarray(decode(data)) for _, data in pictures]
    shown = [render(word, [PILLOWS], grounds, rng).picture for word in truths]
    found = nearest(encoder, shown, choice)
    packed = io.BytesIO()
    sheet(shown, truths, found).save(packed, "PNG")
    write_whole(path, packed.getvalue())
    return sum(map(str.__eq__, found, truths))
