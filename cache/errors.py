"""Errors for people: one sentence that says what is wrong, where, and what to do. The command line prints it alone."""

from pathlib import Path


class DptrError(Exception):
    """The work could not be done although it was asked for rightly (exit code 1)."""

    exit_code = 1


class WrongUse(DptrError):  # noqa: N818 (it names what the person did)
    """What was asked for cannot be right: a missing file, an unknown name, a contradiction (exit code 2)."""

    exit_code = 2


class Damaged(DptrError):  # noqa: N818 (it names what the file is)
    """A file of a cache is not what was written."""

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(
            f"{path} is damaged: {why}. dptr cache verify --repair drops what is damaged, "
            "and the embed command that made it makes it again."
        )
        self.path, self.why = path, why
