"""Errors for people: one sentence that says what is wrong, where, and what to do. It is all the command line prints."""

import re
from pathlib import Path


class DptrError(Exception):
    """The command was right, but the work could not be done (exit code 1)."""

    exit_code = 1


class WrongUse(DptrError):  # noqa: N818 (it names what the person did)
    """The command cannot be right: a missing file, an unknown name, a contradiction (exit code 2)."""

    exit_code = 2


class Damaged(DptrError):  # noqa: N818 (it names what the file is)
    """A file of a cache has changed since it was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is damaged: {why}. Run dptr cache verify --repair to drop what is damaged, "
            "then the command that made it."
        )
        self.path, self.why = path, why


def not_loaded(path: Path | str, error: Exception) -> DptrError:
    """What to raise for a pickle that torch refused: its own message tells people how to run a program hidden there."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    if not found:
        return DptrError(f"{path} is damaged, or no file of weights: it cannot be read. Restore it from a copy.")
    return DptrError(
        f"{path} is not loaded, because it asks for {found[1]}, and weights are only numbers: loading it could run a "
        "program hidden in it. Use a file that holds nothing else."
    )
