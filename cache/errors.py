"""Errors for people: one sentence that says what is wrong, where, and what to do. It is all the command line prints."""

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
