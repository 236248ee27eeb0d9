"""How memories are perturbed in training, written as an expression: `dptr pretrain --perturb "orp(0.1)"`.

grammar.py reads the expression, base.py says what a kind is, material.py is what kinds are made from, and every other
module holds kinds. KINDS lists them all.
"""

from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cache.errors import WrongUse
from train.perturb.base import Part, Perturbation
from train.perturb.gaussian import Gaussian, Scaled
from train.perturb.grammar import Amount, Argument, Call, read, wrong
from train.perturb.learned import Learned
from train.perturb.mix import Mix
from train.perturb.moments import Collapse, Covariance, Matched, Moments, Shift
from train.perturb.neighbours import Far, Nearest, Spread
from train.perturb.orp import ORP
from train.perturb.rows import Drop, Stretch, Swap
from train.perturb.trail import Trail

KINDS: list[type[Part]] = [
    *(ORP, Gaussian, Scaled, Shift, Collapse, Moments, Covariance, Matched),
    *(Learned, Mix, Stretch, Drop, Swap),
    *(Nearest, Far, Spread),
    Trail,
]
DEFAULT = "orp"  # for a bank without an expression


def perturbation(text: str | None, bank: str | None) -> Perturbation:
    """The perturbation that `--perturb` and `--bank` ask for, not yet prepared; none without either.

    Raises WrongUse, which shows the place, for what cannot be read; and for a kind that needs a bank and has none.
    """
    if text is None:
        text = "none" if bank is None else DEFAULT
    parts = [_part(call, text) for call in read(text) if str(call) != "none"]
    lacking = next((part for part in parts if part.needs_bank and bank is None), None)
    if lacking:
        raise WrongUse(f"--perturb {lacking.name} needs photographs: give a --bank made with dptr embed-images.")
    return Perturbation(parts, bank)


def _part(call: Call, text: str) -> Part:
    kinds = {kind.name: kind for kind in KINDS}
    if call.name not in kinds:
        near = get_close_matches(call.name, kinds, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise wrong(text, call.place, f"there is no kind {call.name}: {hint}There are {', '.join(kinds)} and none.")
    kind = kinds[call.name]
    takes: dict[str, Field[Any]] = {f.name: f for f in fields(kind)}
    hints, given = get_type_hints(kind), dict[str, Any]()
    for number, argument in enumerate(call.arguments):
        name = argument.name or (list(takes)[number] if number < len(takes) else "")
        problem = ""
        if argument.name is None and any(a.name for a in call.arguments[:number]):
            problem = "a value without a name follows one with a name"
        elif name not in takes:
            problem = (
                f"{call.name} takes no {name}" if name else f"{call.name} takes {' and '.join(takes) or 'nothing'}"
            )
        elif name in given:
            problem = f"{name} is given twice"
        if problem:
            raise wrong(text, argument.place, f"{problem}: write {_usage(kind)}.")
        given[name] = _value(argument, name, hints[name], text)
    for name, found in takes.items():
        if name not in given and found.default is MISSING:
            raise wrong(text, call.place, f"{call.name} needs its {name}: write {_usage(kind)}.")
    try:
        return kind(**given)
    except ValueError as error:
        raise wrong(text, call.place, f"{call.name}: {error}.") from error


def _usage(kind: type[Part]) -> str:
    """How a kind is written, with its defaults: `orp(strength=0.1, positions=shared)`."""
    said = [f.name if f.default is MISSING else str(Argument(f.default, f.name)) for f in fields(kind)]
    return kind.name + (f"({', '.join(said)})" if said else ", without brackets")


def _value(argument: Argument, name: str, hint: Any, text: str) -> Any:
    """An argument's value as the type of its field."""
    value = argument.value
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise wrong(text, argument.place, f"{name} is {' or '.join(get_args(hint))}, not {value}.")
        return value
    if not isinstance(value, Amount):
        raise wrong(text, argument.place, f"{name} is a number, not {value}.")
    if hint is int:
        if value.percent or not value.value.is_integer():
            raise wrong(text, argument.place, f"{name} is a whole number, not {value}.")
        return int(value.value)
    return value.value if hint is float else value


__all__ = ["KINDS", "Part", "Perturbation", "perturbation"]
