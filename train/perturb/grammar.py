"""Reads how memories are to be perturbed: `stretch(0.3) + gaussian(50%)`.

    expression = call { "+" call }
    call       = name [ "(" [ argument { "," argument } ] ")" ]
    argument   = [ name "=" ] value
    value      = [ "-" ] number [ "%" ]  |  name

Which names there are and what they take is known to `train.perturb`; here they are only read and printed.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

from cache.errors import WrongUse

TOKEN = re.compile(r"(?P<number>-?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)|(?P<name>[^\W\d]\w*)|(?P<sign>[-+(),=%])", re.ASCII)


@dataclass(frozen=True)
class Amount:
    """A number, or a percentage, whose value is a fraction: 10% has the value 0.1."""

    value: float
    percent: bool = False

    def of(self, norm: float, unit: float) -> float:
        """The factor of something of norm `unit`: the value itself, or what makes it this fraction of `norm`."""
        return self.value * norm / unit if self.percent else self.value

    def __str__(self) -> str:
        if self.percent:  # in decimals, so that what is printed is read as the same number
            return f"{(Decimal(repr(self.value)) * 100).normalize():f}%"
        return repr(self.value).removesuffix(".0")


@dataclass(frozen=True)
class Argument:
    """A value, its name if it was given by name, and the place in the text where it stands."""

    value: Amount | str
    name: str | None = None
    place: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return f"{self.name}={self.value}" if self.name else str(self.value)


@dataclass(frozen=True)
class Call:
    """A kind of perturbation and its arguments."""

    name: str
    arguments: tuple[Argument, ...] = ()
    place: int = field(default=0, compare=False)

    def __str__(self) -> str:
        return self.name + (f"({', '.join(map(str, self.arguments))})" if self.arguments else "")


def wrong(text: str, place: int, what: str) -> WrongUse:
    """An error that shows the text with a caret under one place of it."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return WrongUse(f"--perturb: {what}\n    {shown}\n    {' ' * place}^")


def read(text: str) -> list[Call]:
    """The calls of an expression, in their order. Raises WrongUse, which shows the place, for any other text."""
    return _Text(text).expression()


@dataclass(frozen=True)
class _Token:
    kind: str  # number, name, sign, or the end
    text: str
    place: int


class _Text:
    """Text as tokens, of which the first is next."""

    def __init__(self, text: str) -> None:
        self._text, self._tokens = text, list[_Token]()
        place = 0
        while place < len(text):
            found = TOKEN.match(text, place)
            if found:
                self._tokens.append(_Token(str(found.lastgroup), found[0], place))
            elif not text[place].isspace():
                shown = text[place] if text[place].isprintable() else "a control character"
                raise wrong(text, place, f"{shown} cannot stand here; write kinds such as orp(0.1) + gaussian(50%).")
            place = found.end() if found else place + 1
        self._tokens.append(_Token("end", "", len(text)))

    def expression(self) -> list[Call]:
        calls = [self._call()]
        while self._took("+"):
            calls.append(self._call())
        if self._next.kind != "end":
            raise self._expected("+ and another kind, or the end")
        return calls

    def _call(self) -> Call:
        if self._next.kind != "name":
            raise self._expected("the name of a kind, such as orp")
        name = self._tokens.pop(0)
        return Call(name.text, tuple(self._between_brackets(self._argument)), name.place)

    def _between_brackets(self, one: Callable[[], Argument]) -> list[Argument]:
        if not self._took("(") or self._took(")"):
            return []
        found = [one()]
        while not self._took(")"):
            if not self._took(","):
                raise self._expected(", or )")
            found.append(one())
        return found

    def _argument(self) -> Argument:
        first = self._next
        if first.kind == "name":
            self._tokens.pop(0)
            if self._took("="):
                return Argument(self._value(), first.text, first.place)
            return Argument(first.text, None, first.place)
        return Argument(self._value(), None, first.place)

    def _value(self) -> Amount | str:
        token = self._next
        if token.kind == "name":
            return self._tokens.pop(0).text
        if token.kind != "number":
            raise self._expected("a number, a percentage or a word")
        self._tokens.pop(0)
        value = float(token.text)
        if not math.isfinite(value):
            raise wrong(self._text, token.place, "this number is too large.")
        if self._took("%"):  # in decimals, as it is printed
            return Amount(float(Decimal(token.text).scaleb(-2)) if value else 0.0, True)
        return Amount(value)

    @property
    def _next(self) -> _Token:
        return self._tokens[0]

    def _took(self, sign: str) -> bool:
        """Whether the next token is this sign, which is then taken."""
        if self._next.kind == "sign" and self._next.text == sign:
            self._tokens.pop(0)
            return True
        return False

    def _expected(self, what: str) -> WrongUse:
        found = f"not {self._next.text}" if self._next.text else "and not the end"
        return wrong(self._text, self._next.place, f"expected {what}, {found}.")
