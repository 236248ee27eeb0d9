"""Prompts begin alike; those that would not are noticed."""

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import DptrError, WrongUse
from pipeline.prompt import PROMPT, Prompt
from pipeline.tokenizer import BytePairs
from sources.cleaning import clean

TOKENIZER = open_clip.get_tokenizer("ViT-B-16")
RELEASED = Prompt(PROMPT, BytePairs(TOKENIZER))


def test_common_prefix_is_five_tokens():
    assert [TOKENIZER.decoder[i] for i in RELEASED.prefix] == [
        "<start_of_text>",
        *(f"{w}</w>" for w in ["a", "photo", "of", "a"]),
    ]


@pytest.mark.parametrize(("label", "tokens"), [("street", "'s</w> tre et</w> '</w>"), ("cafe", "'</w> cafe</w> '</w>")])
def test_opening_quote_merges_with_some_beginnings(label, tokens):
    assert " ".join(TOKENIZER.decoder[i] for i in RELEASED.ids(label)[5:-1]) == tokens


@given(st.text())
def test_every_clean_label_keeps_the_prefix(text):
    label = clean(text)
    RELEASED.check(label, RELEASED.ids(label))


def test_prompt_without_a_quote_has_a_longer_prefix():
    assert len(Prompt("the word {label}", BytePairs(TOKENIZER)).prefix) == 3


def test_label_that_changes_what_precedes_it_is_refused():
    glued = Prompt("photo{label}", BytePairs(TOKENIZER))
    with pytest.raises(DptrError, match="changes how the prompt before it"):
        RELEASED.check("x", glued.ids("x"))


@pytest.mark.parametrize("template", ["no place", "{label} {label}", "{word}"])
def test_prompt_needs_its_place_once(template):
    with pytest.raises(WrongUse, match="exactly once"):
        Prompt(template, BytePairs(TOKENIZER))


def test_prompt_longer_than_the_encoder_is_refused():
    with pytest.raises(WrongUse, match="no room"):
        Prompt("a " * 80 + "{label}", BytePairs(TOKENIZER))
