"""Token ids are open_clip's, whichever way they are computed."""

from functools import cache

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import DptrError, WrongUse
from pipeline import tokenizer as tokens
from pipeline.tokenizer import BytePairs, tokenizer_of
from pipeline.weights import model_config

LOWER = open_clip.get_tokenizer("ViT-B-16")
OURS = BytePairs(open_clip.get_tokenizer("ViT-B-16"))


@cache
def keeping_case():
    model_config("wordclip")  # registers it
    tokenizer = open_clip.get_tokenizer("wordclip")
    return tokenizer, BytePairs(tokenizer)


def theirs(tokenizer, text: str) -> list[int]:
    return [tokenizer.sot_token_id, *tokenizer.encode(text), tokenizer.eot_token_id]


@given(st.text(st.characters(codec="ascii"), max_size=40))
def test_ids_of_ascii_are_open_clips(text):
    assert OURS.ids(text) == theirs(LOWER, text)


@given(st.text(max_size=20))
def test_ids_of_anything_are_open_clips(text):
    assert OURS.ids(text) == theirs(LOWER, text)


@given(st.text("aAbB '&<>;", max_size=30))
def test_ids_of_repeats_and_entities_are_open_clips(text):
    assert OURS.ids(text) == theirs(LOWER, text)


@given(st.text("abcdeABC19 '$", max_size=30))
def test_case_is_kept_where_the_model_keeps_it(text):
    tokenizer, ours = keeping_case()
    assert ours.ids(text) == theirs(tokenizer, text)


@pytest.mark.parametrize("text", ["<start_of_text>", "a<end_of_text>b", "&amp;", "it's", "  x  ", "", "x\ty", "’s"])
def test_what_the_short_way_must_leave_alone(text):
    assert OURS.ids(text) == theirs(LOWER, text)


def test_ids_of_ten_thousand_pieces_and_memory_that_does_not_grow(monkeypatch):
    monkeypatch.setattr(tokens, "KNOWN", 100)
    ours = BytePairs(open_clip.get_tokenizer("ViT-B-16"))
    texts = [
        f"a photo of a '{word}{n:x}é'" if n % 2 else f"the {word}{n:x}" for n in range(500) for word in ("in", "un")
    ]
    assert [ours.ids(text) for text in texts] == [theirs(LOWER, text) for text in texts]
    assert len(ours._pieces) <= 100
    assert len(ours._tokenizer.cache) <= 102


@pytest.mark.parametrize(
    ("outcome", "error", "message"),
    [
        (object(), WrongUse, "a tokenizer .object. that dptr does not know"),
        (ImportError("transformers"), WrongUse, "pip install 'dptr.multilingual.'"),
        (OSError("no route to the hub"), DptrError, "could not be fetched or loaded: no route"),
    ],
)
def test_a_tokenizer_that_cannot_be_had_is_one_sentence(monkeypatch, outcome, error, message):
    def get(model):
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(open_clip, "get_tokenizer", get)
    with pytest.raises(error, match=message):
        tokenizer_of("ViT-B-16-SigLIP")
