"""How options are declared: once, as the fields of a dataclass. The command line and a run's config.json follow."""

from collections.abc import Iterable
from dataclasses import MISSING, field
from typing import Any

from cache.errors import WrongUse

PANELS = ("Change these first", "Data", "Length", "Model", "Perturbation", "Machine")  # of --help, in this order
FIRST, DATA, LENGTH, MODEL, PERTURBATION, MACHINE = PANELS


def option(help: str, panel: str, default: Any = MISSING, *, flag: str | None = None, env: str | None = None) -> Any:
    """A field that is an option as well: its help, its panel, and its flag where the name does not give it.

    Without a default it must be given. `env` names the environment variable that stands in for it.
    """
    more: dict[str, Any] = {"default_factory": list} if default == [] else {"default": default}
    return field(**more, metadata={"help": help, "panel": panel, "flag": flag, "env": env})


def released_rate(batch: int) -> float:
    """Peak learning rate of the released code, whose batches had 384 words, for another batch."""
    return float(7e-4 * 2**0.5 * batch / 256)


def check_counts(options: Any, given: Iterable[str], may_be_open: Iterable[str]) -> None:
    """WrongUse for an option that is not more than 0, or for an odd number of permutations."""
    given = list(given)
    for name in (*given, *may_be_open):
        value = getattr(options, name)
        if (value is not None or name in given) and value <= 0:
            raise WrongUse(f"--{name.replace('_', '-')} must be more than 0, not {value}.")
    if options.permutations not in (None, 1) and options.permutations % 2:
        raise WrongUse(f"--permutations is 1, or even because they come in mirrored pairs, not {options.permutations}.")
