"""Options are declared once, as dataclass fields; the command line and a run's config.json are made from them."""

import re
from collections.abc import Iterable
from dataclasses import MISSING, field
from pathlib import Path
from typing import Any

from cache.errors import WrongUse
from cache.files import check_folder

PANELS = ("Change these first", "Data", "Length", "Model", "Perturbation", "Machine")  # of --help, in this order
FIRST, DATA, LENGTH, MODEL, PERTURBATION, MACHINE = PANELS


def option(
    help: str, panel: str, default: Any = MISSING, *, flag: str | None = None, env: str | None = None, instead: str = ""
) -> Any:
    """A dataclass field that is also an option: its help, its panel, and its flag if the name does not give it.

    Without a default the option is required. `env` names an environment variable that can supply it, `instead` the
    option that it is an alternative to.
    """
    more: dict[str, Any] = {"default_factory": list} if default == [] else {"default": default}
    return field(**more, metadata={"help": help, "panel": panel, "flag": flag, "env": env, "instead": instead})


def released_rate(batch: int) -> float:
    """Peak learning rate of the released code, scaled from its batch of 384 words to this `batch`."""
    return float(7e-4 * 2**0.5 * batch / 256)


def rows_and_columns(flag: str, text: str) -> tuple[int, int]:
    """The size of pictures that the option `flag` gives. Raises WrongUse if it cannot be parsed."""
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise WrongUse(f"{flag} must be rows x columns, such as 32x128, not '{text}'.")
    return int(found[1]), int(found[2])


def check_out(out: Path) -> None:
    """Raise WrongUse if a run cannot be written to `out`."""
    if any(0xD800 <= ord(c) < 0xE000 for c in str(out.absolute())):  # how Python keeps a byte that is not UTF-8
        raise WrongUse(f"--out {out} is not a name in UTF-8, which TensorBoard needs: choose another.")
    check_folder("--out", out)


def check_counts(options: Any, given: Iterable[str], may_be_open: Iterable[str]) -> None:
    """Raise WrongUse for an option that is not more than 0, or for an odd number of permutations other than 1.

    Options in `may_be_open` may also be None.
    """
    given = list(given)
    for name in (*given, *may_be_open):
        value = getattr(options, name)
        if (value is not None or name in given) and value <= 0:
            raise WrongUse(f"--{name.replace('_', '-')} must be more than 0, not {value}.")
    if options.permutations not in (None, 1) and options.permutations % 2:
        raise WrongUse(f"--permutations come in mirrored pairs: give 1 or an even number, not {options.permutations}.")
