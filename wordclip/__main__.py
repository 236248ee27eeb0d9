"""Makes an encoder for words: draws pictures, trains two towers on them, writes the weights and measures them.

    python -m wordclip --words FILE --fonts DIR --photos DIR --crops LMDB --watch LMDB --out DIR

If it is stopped, the same command goes on where it was.
"""

import json
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import typer

from cache.errors import DptrError, WrongUse
from cache.files import write_whole
from pipeline.encoder import Encoder
from wordclip.ahead import draw_ahead, drawn_ahead, photographs
from wordclip.batches import Batches
from wordclip.crops import Crops, read_crops
from wordclip.fonts import Font, find_fonts
from wordclip.measure import CHOICE, measure, token_views
from wordclip.model import Heads
from wordclip.render import Picture, render
from wordclip.train import Recipe, Training
from wordclip.words import WordSampler, kept_words, read_list
from wordclip.write import write_weights

ALWAYS = {chr(n) for n in range(33, 127)} | set("£€¥")
REAL, OTHERS = 0.16, 0.5  # of a batch: share of real crops in it, and words without a picture added to it
LEAST_FONTS = 20  # fonts that must draw a character before words with it are used
LEAST_SEEN = 30  # times a character must occur to get a class of its own in the heads


def main(
    words: list[Path] = typer.Option(
        ..., exists=True, dir_okay=False, help="Lists of words, one per line; log10 frequency after a tab, if known."
    ),
    fonts: list[str] = typer.Option(..., help="Folders with .ttf and .otf files, searched recursively."),
    photos: list[str] = typer.Option(..., help="Photographs to put behind words: folders, tars, LMDBs."),
    crops: list[Path] = typer.Option([], help="LMDBs of real word crops: nine tenths are for training."),
    watch: list[Path] = typer.Option([], help="LMDBs of real word crops that are only for measuring."),
    out: Path = typer.Option(..., help="Folder for pictures, state, weights and figures."),
    pictures: int = typer.Option(800_000, help="Pictures to draw ahead; 12 kB each."),
    minutes: float = typer.Option(90, help="Minutes of training, over all restarts."),
    batch: int = typer.Option(64, help="Pictures per step at first, later twice as many. A GPU takes many more."),
    seed: int = typer.Option(0, help="Seed of words, pictures, weights and batches."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
) -> None:
    """Draw, train, write, measure."""
    out.mkdir(parents=True, exist_ok=True)
    encoder = Encoder("wordclip", f"untrained:{seed}", precision="fp32", device="cpu")
    lists = [path.read_text("utf-8") for path in words]
    wanted = sorted(ALWAYS | {c for text in lists for c in text + text.upper() if c.isprintable() and not c.isspace()})
    able = find_fonts(fonts, wanted)
    if not able:
        raise WrongUse(f"there is no legible font under {', '.join(fonts)}: name another folder with --fonts.")
    drawn_by = Counter(c for font in able for c in font.characters)
    usual = {c for c, count in drawn_by.items() if count >= min(LEAST_FONTS, len(able))}
    entries = [read_list(path, usual) for path in words]
    sampler = WordSampler(entries, encoder.prompt.tokens, usual)
    grounds = photographs(photos)
    typer.echo(f"{len(able)} fonts, {sum(map(len, entries)):,} words, {len(usual)} characters, {len(grounds):,} photos")
    if not (out / "words.txt").exists():
        draw_ahead(out, pictures, sampler, able, grounds, seed)
    drawn = drawn_ahead(out)

    known, held = read_crops(crops)
    seen = Counter("".join(drawn[1]) + "".join(known.labels))
    heads = Heads(sorted(c for c, count in seen.items() if count >= LEAST_SEEN), encoder.model)
    training = Training(encoder, heads, Recipe(minutes, batch, seed=seed, device=device), out)
    batches = Batches(drawn, known, sampler, encoder.prompt, real=REAL, others=OTHERS, seed=seed)
    fillers = kept_words(entries, CHOICE, seed)
    if training.load():
        typer.echo(f"going on after {training.minutes:.1f} minutes")
    sets = {"drawn": _drawn(entries, known.labels, able, grounds, seed)}
    if len(held):
        sets["held-out crops"] = held
    sets |= {path.name: Crops.joined(read_crops([path])) for path in watch}
    training.run(batches, sets[watch[0].name if watch else list(sets)[-1]], fillers, typer.echo)

    digest = write_weights(training.model, out / "wordclip.safetensors")
    typer.echo(f"{out / 'wordclip.safetensors'}: sha256 {digest}")
    real = REAL if len(known) else 0.0
    views = token_views(
        encoder.prompt,
        [
            (drawn[1], training.paired * (1 - real) / len(drawn[1])),
            (known.labels, training.paired * real / max(1, len(known))),
        ],
    )
    shipped = Encoder("wordclip", str(out / "wordclip.safetensors"), precision="fp32", device="cpu")
    figures = {
        name: measure(shipped.model, shipped.preprocess_config, shipped.prompt, set_, fillers, views)
        for name, set_ in sets.items()
    }
    figures["training"] = {"minutes": training.minutes, "read": training.read, "paired": training.paired}
    write_whole(out / "measured.json", json.dumps(figures, indent=1).encode())
    typer.echo(json.dumps(figures, indent=1))


def _drawn(
    entries: list[list[tuple[str, float]]], known: list[str], fonts: list[Font], grounds: list[Picture], seed: int
) -> Crops:
    """Pictures of 4,000 words in the same fonts, none of which training ever drew or met as a crop."""
    rng, seen = random.Random(f"measure {seed}"), {label.casefold() for label in known}
    able = [word for word in kept_words(entries, 8 * CHOICE, seed + 1) if word.casefold() not in seen]
    labels = able[: 4 * CHOICE]
    return Crops(np.stack([render(label, fonts, grounds, rng) for label in labels]), labels)


if __name__ == "__main__":
    try:
        typer.run(main)
    except DptrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: stopped; the same command goes on from the last save", file=sys.stderr)
        sys.exit(130)
