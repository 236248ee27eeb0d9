"""The command that draws word images ahead: `dptr draw`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from cache.errors import WrongUse
from cache.files import check_folder
from commands.console import Json, Split, finish, say
from commands.drawing import drawn_words, scenery, words_to_draw
from sources.cleaning import MAX_LENGTH
from sources.drawn.hard import check_share
from train.options import DATA, FIRST, MACHINE, MODEL, rows_and_columns


def draw(
    sources: Annotated[list[str], typer.Argument(help="what embed-text reads, or a corpus in the cache")],
    out: Annotated[Path, typer.Option(help="LMDB to make, which finetune --train reads.", rich_help_panel=FIRST)],
    count: Annotated[int, typer.Option(min=1, help="Number of pictures.", rich_help_panel=FIRST)],
    fonts: Annotated[
        list[str],
        typer.Option(help="Folder of fonts (default: all that are usual); repeatable.", rich_help_panel=DATA),
    ] = [],  # noqa: B006 (typer copies it)
    behind: Annotated[
        list[str],
        typer.Option(help="Photographs to draw on: folder, tar, LMDB, dataset; repeatable.", rich_help_panel=DATA),
    ] = [],  # noqa: B006
    hard_words: Annotated[
        float, typer.Option(help="Fraction of pictures that show no listed word.", rich_help_panel=DATA)
    ] = 0.3,
    size: Annotated[str, typer.Option(help="Rows and columns of a picture.", rich_help_panel=DATA)] = "32x128",
    cache: Annotated[
        Path | None, typer.Option(help="Cache folder, for words of a corpus.", rich_help_panel=DATA)
    ] = None,
    split: Split = "train",
    charset: Annotated[
        str, typer.Option(help="36, 62, 94, or a file of the characters to draw.", rich_help_panel=MODEL)
    ] = "94",
    space_char: Annotated[bool, typer.Option("--space-char", help="Draw spaces, too.", rich_help_panel=MODEL)] = False,
    max_length: Annotated[
        int, typer.Option(min=1, help="Maximum length of a text, in characters.", rich_help_panel=MODEL)
    ] = MAX_LENGTH,
    seed: Annotated[int, typer.Option(help="Random seed for texts and pictures.", rich_help_panel=MACHINE)] = 0,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes that draw (default: all cores).", rich_help_panel=MACHINE)
    ] = None,
    as_json: Json = False,
) -> None:
    """Draw word images ahead, for machines that train faster than they draw."""
    pixels = rows_and_columns("--size", size)
    check_share(hard_words)
    check_folder("--out", out.parent)
    if out.exists():
        raise WrongUse(f"{out} is there already: choose another --out.")
    from models.charset import Charset, characters
    from sources.drawn.drawn_set import Writing
    from train.data.crops import usable
    from train.data.draw_ahead import draw_ahead

    alphabet = Charset(characters(charset, space_char))
    writing = Writing(alphabet.characters, max_length, alphabet.fold)
    words = [word for source in sources for word in words_to_draw(source, cache, split)]
    one = drawn_words(", ".join(sources), words, writing, scenery(fonts, behind, writing), hard_words, seed)
    crops = usable([one], alphabet, max_length)
    for reason, number in crops.dropped.items():
        say(f"{number:,} words not drawn: {reason}")
    done = draw_ahead(crops, out, count, pixels, seed, workers or os.cpu_count() or 1, say)
    text = (
        f"{out}: {count:,} pictures of {size}, {done.new:,} of them drawn in {done.seconds:.1f} s "
        f"({done.new / done.seconds:,.0f} pictures/s), {done.bytes / count:,.0f} bytes each"
    )
    finish(text, vars(done), as_json)
