"""Finds a run by its folder, and the readers that come with dptr by their names.

Those are folders beside this file, as `dptr export --half` writes them. docs/reader.md is the card of `reader`, which
`dptr read` and `dptr serve` use if no run is named.
"""

import os
from pathlib import Path

from cache.errors import WrongUse
from train.exported import is_exported

FOLDER = Path(__file__).parent


def holds_run(folder: Path) -> bool:
    """Whether the folder is a run, or what was exported of one."""
    return (folder / "config.json").is_file() or is_exported(folder)


def find_run(run: Path) -> Path | None:
    """The folder of a run: `run` itself or, if nothing there is called so, the shipped reader of that name.

    None if there is neither.
    """
    if holds_run(run):
        return run
    shipped = FOLDER / run
    return shipped if len(run.parts) == 1 and not os.path.lexists(run) and holds_run(shipped) else None


def shipped_reader() -> Path:
    """The folder of the reader that is used if no run is named. WrongUse if it does not come with this installation."""
    if holds_run(FOLDER / "reader"):
        return FOLDER / "reader"
    raise WrongUse("no reader comes with this installation: name a run that dptr finetune made, or an exported one.")


def folder_of(run: Path) -> Path:
    """The folder that `find_run` finds. WrongUse if there is none."""
    if found := find_run(run):
        return found
    names = " or ".join(sorted(folder.name for folder in FOLDER.iterdir() if holds_run(folder)))
    hint = f", or use {names}, which comes with dptr" if names else ""
    raise WrongUse(f"there is no run in {run}: make one with dptr pretrain --out {run}{hint}.")
