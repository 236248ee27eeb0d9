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
from pipeline.tokenizer import Characters
from sources.drawn.fonts import Font, find_fonts
from sources.drawn.photographs import photographs
from sources.drawn.render import Picture, render
from sources.drawn.words import WordSampler, kept_words, read_list
from wordclip.crops import Crops, read_crops
from wordclip.drawing import CHUNK, Artist
from wordclip.measure import CHOICE, measure
from wordclip.pool import Pool
from wordclip.train import MODEL, Recipe, Training

ALWAYS = {chr(n) for n in range(33, 127)} | set("£€¥")
LEAST_FONTS = 20  # fonts that must draw a character before words with it are used


def main(
    words: list[Path] = typer.Option(
        ..., exists=True, dir_okay=False, help="Lists of words, one per line; log10 frequency after a tab, if known."
    ),
    fonts: list[str] = typer.Option(..., help="Folders with .ttf and .otf files, searched recursively."),
    photos: list[str] = typer.Option(..., help="Photographs to put behind words: folders, tars, LMDBs."),
    crops: list[Path] = typer.Option([], help="LMDBs of real word crops: nine tenths are for training."),
    watch: list[Path] = typer.Option([], help="LMDBs of real word crops that are only for measuring."),
    out: Path = typer.Option(..., help="Folder for pictures, state, weights and figures."),
    pictures: int = typer.Option(800_000, help="Pictures to draw, 12 kB each, in files and on the device."),
    minutes: float = typer.Option(90, help="Minutes of training, over all restarts."),
    batch: int = typer.Option(64, help="Pictures per step at first, later twice as many. A GPU takes many more."),
    drawers: int | None = typer.Option(None, help="Processes that draw meanwhile; all cores but one if left out."),
    every: float = typer.Option(5.0, help="Minutes between two saves."),
    seed: int = typer.Option(0, help="Seed of words, pictures, weights and batches."),
    device: str = typer.Option("auto", help="auto, cpu or cuda."),
) -> None:
    """Draw, train, write, measure."""
    out.mkdir(parents=True, exist_ok=True)
    encoder = Encoder(MODEL, f"untrained:{seed}", precision="fp32", device="cpu")
    tokens = encoder.prompt.tokens
    assert isinstance(tokens, Characters)
    able = find_fonts(fonts, [c for c in tokens.number if c.isprintable() and not c.isspace()])
    if not able:
        raise WrongUse(f"there is no legible font under {', '.join(fonts)}: name another folder with --fonts.")
    drawn_by = Counter(c for font in able for c in font.characters)
    usual = {c for c, count in drawn_by.items() if count >= min(LEAST_FONTS, len(able))}
    entries = [read_list(path, usual) for path in words]
    grounds = photographs(photos)
    typer.echo(f"{len(able)} fonts, {sum(map(len, entries)):,} words, {len(usual)} characters, {len(grounds):,} photos")
    artist = Artist(WordSampler(entries, usual), tokens, able, grounds, seed, out / "pictures")

    chunks = -(-pictures // CHUNK)
    with artist.at_work(chunks, drawers):
        known, held = read_crops(crops)
        fillers = kept_words(entries, CHOICE, seed)
        sets = {"drawn": _drawn(entries, known.labels, able, grounds, seed)}
        if len(held):
            sets["held-out crops"] = held
        sets |= {path.name: Crops.joined(read_crops([path])) for path in watch}
        training = Training(encoder, tokens, Recipe(minutes, batch, seed=seed, device=device), out)
        if training.load():
            typer.echo(f"going on after {training.minutes:.1f} minutes")
        drawn, real = Pool(chunks * CHUNK, training.device), Pool.of(known, tokens, training.device)
        with drawn.follow(artist, chunks):
            training.run(drawn, real, sets[watch[0].name if watch else list(sets)[-1]], fillers, typer.echo, every)

    typer.echo(f"{out / MODEL}.safetensors: sha256 {training.write()}")
    shipped = Encoder(MODEL, str(out / f"{MODEL}.safetensors"), precision="fp32", device="cpu")
    shipped.model.to(training.device)
    figures = {
        name: measure(shipped.model, shipped.preprocess_config, shipped.prompt, set_, fillers)
        for name, set_ in sets.items()
    }
    done = {"minutes": training.minutes, "read": training.read, "paired": training.paired, "drawn": drawn.filled}
    figures["training"] = done
    write_whole(out / "measured.json", json.dumps(figures, indent=1).encode())
    typer.echo(json.dumps(figures, indent=1))


def _drawn(
    entries: list[list[tuple[str, float]]], known: list[str], fonts: list[Font], grounds: list[Picture], seed: int
) -> Crops:
    """Pictures of 4,000 words in the same fonts, none of which training ever drew or met as a crop."""
    rng, seen = random.Random(f"measure {seed}"), {label.casefold() for label in known}
    able = [word for word in kept_words(entries, 8 * CHOICE, seed + 1) if word.casefold() not in seen]
    labels = able[: 4 * CHOICE]
    return Crops(np.stack([render(label, fonts, grounds, rng).picture for label in labels]), labels)


if __name__ == "__main__":
    try:
        typer.run(main)
    except DptrError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("error: stopped; the same command goes on from the last save", file=sys.stderr)
        sys.exit(130)
