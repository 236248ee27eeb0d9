"""Expressions: what they say, how they are printed, and errors that point at the place."""

from dataclasses import fields

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import WrongUse
from tests.helpers.commands import run
from train.perturb import KINDS, perturbation
from train.perturb.gaussian import Gaussian
from train.perturb.grammar import Amount, Argument, Call, read
from train.perturb.mix import Mix
from train.perturb.orp import ORP
from train.perturb.rows import Stretch

NAMES = st.from_regex(r"[a-z_][a-z0-9_]*", fullmatch=True)
NUMBERS = st.floats(-1e9, 1e9, allow_nan=False).map(lambda x: x + 0.0)
AMOUNTS = st.builds(Amount, NUMBERS, st.booleans())
ARGUMENTS = st.builds(Argument, st.one_of(AMOUNTS, NAMES), st.one_of(st.none(), NAMES))
CALLS = st.builds(Call, NAMES, st.lists(ARGUMENTS, max_size=3).map(tuple))
SIGNS = ["=", "(", ")", ",", "+", "%", " ", "\n", "λ", "\ud800", "..", "-1", "0.1", "3", "1e999", "1e9999999999999999"]
WORDS = [*(kind.name for kind in KINDS), "none", "strength", "share", "k", "sample", "x"]
PIECES = st.sampled_from(SIGNS + WORDS)


def test_an_expression_is_its_parts_in_order():
    found = perturbation("stretch(0.3,blanks = 20%)+ gaussian(50%) + orp(0.2, positions=sample) + orp + mix(k=4)", "b")
    assert found.parts == [
        Stretch(0.3, 0.2),
        Gaussian(Amount(0.5, True)),
        ORP(Amount(0.2), "sample"),
        ORP(Amount(0.1)),
        Mix(4),
    ]
    assert str(found) == "stretch(0.3, blanks=0.2) + gaussian(50%) + orp(0.2, positions=sample) + orp + mix(4)"


@pytest.mark.parametrize("text", [None, "none", " none ", "none + none"])
def test_nothing_is_nothing(text):
    assert perturbation(text, None).parts == []
    assert perturbation(text, None).describe() == "no perturbation (no --bank or --perturb)"


def test_a_bank_alone_is_as_released():
    assert perturbation(None, "photos").parts == [ORP(Amount(0.1), "shared")]
    assert perturbation("none", "photos").parts == []


def test_a_kind_says_that_it_needs_a_bank():
    for kind in KINDS:
        text = kind.name if all(f.name != "strength" and f.name != "share" for f in fields(kind)) else f"{kind.name}(1)"
        if kind.needs_bank:
            with pytest.raises(WrongUse, match=f"{kind.name} needs photographs: give a --bank"):
                perturbation(text, None)
        else:
            assert [type(part) for part in perturbation(text, None).parts] == [kind]


@settings(max_examples=150)
@given(st.lists(CALLS, min_size=1, max_size=4))
def test_what_is_printed_is_read_again(calls):
    assert read(" + ".join(map(str, calls))) == calls


@settings(max_examples=200)
@given(st.one_of(st.lists(PIECES, max_size=12).map("".join), st.text(max_size=30)))
def test_any_text_is_a_perturbation_or_wrong_use(text):
    try:
        found = perturbation(text, "photos")
    except WrongUse as error:
        message, shown, caret = str(error).split("\n")
        assert message.startswith("--perturb: ")
        assert message.isprintable()
        assert shown.isprintable()
        assert len(shown) == len(text) + 4
        assert 4 <= caret.index("^") <= len(text) + 4
    else:
        assert perturbation(str(found), "photos").parts == found.parts


@pytest.mark.parametrize(
    ("text", "under", "message"),
    [
        ("", 0, "expected the name of a kind, such as orp, and not the end"),
        ("orp(0.1", 7, "expected , or ), and not the end"),
        ("orp(0.1 gaussian", 8, "expected , or ), not gaussian"),
        ("orp(0.1) gaussian(1)", 9, "expected + and another kind, or the end, not gaussian"),
        ("orp(0.1) +", 10, "expected the name of a kind"),
        ("orp(=1)", 4, "expected a number, a percentage or a word, not ="),
        ("orp(0.1) & x", 9, "& cannot stand here"),
        ("orp(1e999)", 4, "too large"),
        ("stretch(0.3) + gausian(1)", 15, "there is no kind gausian: did you mean gaussian? There are orp, gaussian,"),
        ("gaussian", 0, "gaussian needs its strength: write gaussian(strength)"),
        ("gaussian(0.1, 3)", 14, "gaussian takes strength: write gaussian(strength)"),
        ("orp(0.1, place=2)", 9, "orp takes no place: write orp(strength=0.1, positions=shared)"),
        ("orp(0.1, strength=2)", 9, "strength is given twice"),
        ("orp(positions=sample, 1)", 22, "a value without a name follows one with a name"),
        ("orp(sample)", 4, "strength is a number, not sample"),
        ("orp(0.1, positions=x)", 9, "positions is shared or sample, not x"),
        ("mix(2.5)", 4, "k is a whole number, not 2.5"),
        ("mix(10%)", 4, "k is a whole number, not 10%"),
        ("none + gaussian(-1)", 7, "gaussian: strength must be above 0"),
        ("moments(1)", 8, "moments takes nothing: write moments"),
    ],
)
def test_an_error_points_at_the_place(text, under, message):
    with pytest.raises(WrongUse) as error:
        perturbation(text, "photos")
    said, shown, caret = str(error.value).split("\n")
    assert message in said
    assert shown == "    " + text
    assert caret == " " * (4 + under) + "^"


def test_the_caret_reaches_the_terminal(tmp_path):
    done = run("pretrain", "--corpus", "x", "--out", "run", "--perturb", "gaussian(50%", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.endswith("    gaussian(50%\n                ^\n")
