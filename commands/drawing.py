"""Gathers what word images are drawn from: words, what a decoder can write, fonts, photographs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cache.errors import WrongUse
from cache.report import counted
from commands.console import DEFAULT_CACHE, say

if TYPE_CHECKING:
    from sources.drawn.drawn_set import Scenery, Writing
    from sources.labelled import Labelled

PHOTOGRAPHS = 5000  # of each --behind: 200 MB, and more would hardly look otherwise


def words_to_draw(source: str, cache: Path | None, split: str) -> list[str]:
    """The words of a file or any other source of words, or else of a corpus in the cache. WrongUse if it is neither."""
    from sources.words import READERS, Reading, words

    if not Path(source).exists():
        from cache.space import spaces

        folder = cache or Path(os.environ.get("DPTR_CACHE", DEFAULT_CACHE))
        if found := [space.corpus(source).labels() for space in spaces(folder) if source in space.corpora()]:
            if any(set(labels) != set(found[0]) for labels in found):
                raise WrongUse(f"corpus '{source}' differs between the spaces of {folder}: name the file of its words.")
            return found[0]
        if "/" not in source and Path(source).suffix not in READERS:
            have = ", ".join(sorted({name for space in spaces(folder) for name in space.corpora()})) or "no corpora"
            raise WrongUse(f"there is no file '{source}', and no such corpus in {folder}, which has {have}.")
    return list(words(source, Reading(split=split, say=say)))


def scenery(fonts: Sequence[str], behind: Sequence[str], writing: Writing) -> Scenery:
    """Fonts below folders, or below the usual ones, and photographs. WrongUse if no font is legible."""
    from sources.drawn.drawn_set import Scenery
    from sources.drawn.fonts import find_fonts, usual_folders
    from sources.drawn.photographs import photographs

    missing = [folder for folder in fonts if not Path(folder).is_dir()]
    if missing:
        raise WrongUse(f"there is no folder {missing[0]} with fonts: name another with --fonts.")
    folders = list(fonts) or usual_folders()
    say("looking for fonts ...")
    found = find_fonts(folders, writing.drawn)
    if not found:
        raise WrongUse(f"there is no legible font below {', '.join(folders)}: name another folder with --fonts.")
    return Scenery(found, photographs(behind, PHOTOGRAPHS))


def drawn_words(
    source: str, words: Iterable[str], writing: Writing, scenery: Scenery, hard: float, seed: int
) -> Labelled:
    """A set that is drawn; what it is made of is said."""
    from sources.drawn.drawn_set import drawn_set

    made = drawn_set(source, words, writing, scenery, hard, seed)
    say(
        f"{source}: {counted(len(made), 'word')} to draw, {hard:.0%} of them hard ones, "
        f"in {counted(len(scenery.fonts), 'font')}, "
        + (
            f"on {counted(len(scenery.photographs), 'photograph')}"
            if scenery.photographs
            else "on plain colours (see --behind)"
        )
    )
    return made
