"""Runs the whole chain on words and photographs that are installed with dptr: `dptr demo`.

The encoder is the one that comes with dptr. It lays out a word and a picture of it alike, a row for each character. So
a decoder that learns to spell words from their rows reads pictures, without ever having seen one.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from cache.errors import WrongUse
from cache.files import write_whole
from pipeline.convert import convert
from pipeline.embed_images import embed_images
from pipeline.embed_text import embed_text
from pipeline.encoder import Encoder
from pipeline.labels import collect
from sources.drawn.fonts import PILLOWS
from sources.drawn.render import render
from sources.labelled import Labelled
from sources.pictures import decode
from sources.signs import photographs, signs
from train.pretrain import pretrain
from train.pretrain_options import PretrainOptions
from train.reading.evaluate import evaluate, evaluate_crops
from train.reading.result import Evaluation, table
from wordclip.show import png, sheet

STEPS = 600  # of 64 words: a minute or two on two cores of any processor
DRAWN = 200  # words


def demo(out: Path, say: Callable[[str], None], steps: int = STEPS) -> str:
    """Embed, pre-train, evaluate and read pictures in `out`, which is recreated; returns the demo's closing text."""
    cache, run, drawn = out / "cache", out / "run", out / "pictures.png"
    if out.exists() and any(p not in (cache, run, drawn) for p in out.iterdir()):
        raise WrongUse(f"{out} holds files that are not from a demo: choose another --out.")
    pictures = list(photographs())
    for folder in (cache, run):
        shutil.rmtree(folder, ignore_errors=True)
    encoder = Encoder("wordclip2", "shipped")

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
    say(f"\n5/5 pictures: drawing {DRAWN} of these words over the photographs, and dptr evaluate run --zero-label")
    held_out = [r.truth for r in sorted(done.readings, key=lambda r: r.number)]
    read = _read_drawn(run, encoder, pictures, held_out[:DRAWN], drawn)
    return "\n".join(
        [
            table(done, worst=0),
            "",
            f"{'held-out word':24}read from its memory",
            *lines,
            "",
            table(read, worst=0),
            "",
            "The decoder learnt from other words, and never saw a picture. It reads these, since the encoder gives a",
            "picture of a word nearly the same rows as the word itself.",
            f"They are shown in {drawn}; the cache and the run are in {out}.",
        ]
    )


def _read_drawn(
    run: Path, encoder: Encoder, pictures: list[tuple[str, bytes]], words: list[str], path: Path
) -> Evaluation:
    """Draw the words over `pictures`, read them with the run's decoder and write a sheet of them."""
    rng = random.Random(0)
    grounds = [np.asarray(decode(data)) for _, data in pictures]
    shown = [render(word, [PILLOWS], grounds, rng).picture for word in words]
    found = evaluate_crops(
        run, [Labelled("drawn words", words, lambda n: png(Image.fromarray(shown[n])))], tower=convert(encoder)
    )
    texts = [reading.text for reading in sorted(found.readings, key=lambda r: r.number)]
    write_whole(path, png(sheet(shown, words, texts)))
    return found
