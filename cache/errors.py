"""Errors for people: one sentence that says what is wrong, where, and what to do. The command line prints it alone."""


class DptrError(Exception):
    """The work could not be done although it was asked for rightly (exit code 1)."""

    exit_code = 1


class WrongUse(DptrError):  # noqa: N818 (it names what the person did)
    """What was asked for cannot be right: a missing file, an unknown name, a contradiction (exit code 2)."""

    exit_code = 2
