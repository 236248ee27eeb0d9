"""Text to ids and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from train.charset import CHARACTERS_94, EOS, Charset

CHARSET = Charset()


def test_ids_are_the_released_ones():
    assert (CHARSET.bos, CHARSET.pad, CHARSET.ids, CHARSET.head) == (95, 96, 97, 95)
    assert CHARSET.encode(["01", "z"]).tolist() == [[95, 1, 2, EOS], [95, 36, EOS, 96]]


@given(st.lists(st.text(CHARACTERS_94, min_size=1), min_size=1))
def test_text_comes_back(labels):
    targets = CHARSET.encode(labels)[:, 1:]
    assert CHARSET.decode(torch.where(targets == CHARSET.pad, EOS, targets)) == labels


def test_other_characters_are_not_held():
    assert CHARSET.holds("a~Z")
    assert not CHARSET.holds("é")
    assert not CHARSET.holds("a b")
