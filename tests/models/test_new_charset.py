"""A decoder for another charset reads what it knew as before, and has new rows for new characters."""

import pytest
import torch
from torch import nn

import models.decoders
from cache.errors import WrongUse
from models.charset import EOS
from models.decoders import TextDecoder, make, names
from models.new_charset import carried, with_characters
from tests.helpers.decoders import ragged, small

BEFORE = "abcdefgh"
NOW = "hgXfedcbaYé"  # all of them, in another order, and three more
every = pytest.mark.parametrize("kind", names())


@pytest.fixture
def masked():
    """Decoders before and after, where the new characters are never written."""

    def made(kind):
        before = small(kind, characters=BEFORE, max_length=6)
        now = with_characters(before, NOW).eval()
        with torch.no_grad():
            now.head.bias[[NOW.index(c) + 1 for c in "XYé"]] = -torch.inf
        return before, now

    return made


@every
def test_words_of_known_characters_are_read_as_before(kind, masked):
    before, now = masked(kind)
    memory, mask, _ = ragged(40, 24, [5, 8, 6, 7] * 10)
    ids, shares = before.read(memory, mask)
    assert len({text for text in before.charset.decode(ids) if text}) > 3  # not all the same, nor empty
    found, likely = now.read(memory, mask)
    assert now.charset.decode(found) == before.charset.decode(ids)
    assert torch.allclose(likely, shares, atol=1e-5)


@every
def test_losses_of_known_words_are_as_before(kind, masked):
    before, now = masked(kind)
    memory, mask, _ = ragged(3, 24, [5, 8, 6])
    losses = []
    for decoder in (before, now):
        torch.manual_seed(1)  # for PARSeq's orders
        losses.append(decoder.loss(memory, mask, decoder.charset.encode(["bad", "facade", "h"])).item())
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)


@every
def test_rows_are_those_of_their_characters_and_others_a_new_decoders(kind):
    """Also with characters that are left out, so that all ids move."""
    before = small(kind, characters=BEFORE)
    torch.manual_seed(5)
    now = with_characters(before, "Zca")
    torch.manual_seed(5)
    fresh = make(now.config)
    old, new = before.charset, now.charset
    ids = {EOS: EOS, 2: 3, 3: 1, new.bos: old.bos, new.pad: old.pad}
    for name, tensor in now.state_dict().items():
        if name in ("head.weight", "head.bias", "embedding.weight"):
            for row in range(len(tensor)):
                expected = before.state_dict()[name][ids[row]] if row in ids else fresh.state_dict()[name][row]
                assert torch.equal(tensor[row], expected), (name, row)
        else:
            assert torch.equal(tensor, before.state_dict()[name]), name
    assert now.charset.characters == "Zca"
    now.loss(torch.randn(1, 4, 24), None, new.encode(["ZaZ"])).backward()
    assert now.head.weight.grad.abs().sum() > 0


def test_nothing_in_common_is_refused():
    with pytest.raises(WrongUse, match="none of the 2 characters of --charset is among the 8 that .* knows: pre-train"):
        with_characters(small("nrtr", characters=BEFORE), "éж")


def test_a_decoder_with_other_rows_is_refused(monkeypatch):
    """Even if both charsets are of one size, so that its weights would fit."""

    class Other(TextDecoder):
        loss = read = None

        def __init__(self, config):
            super().__init__(config, lambda *_: nn.Identity())
            self.language = nn.Parameter(torch.zeros(self.charset.head, 2))

    Other.__abstractmethods__ = frozenset()
    config = small("abinet", characters=BEFORE).config
    monkeypatch.setattr("models.new_charset.make", Other)
    assert models.decoders.make is not Other
    with pytest.raises(WrongUse, match="the decoder abinet has language for each character.*leave out --charset"):
        with_characters(Other(config), "abcdefgZ")


def test_what_is_kept_is_said():
    assert carried("abcd", "abcdxyz") == "4 of 7 characters known, 3 new"
    assert carried("abcd", "a") == "1 of 1 characters known, 0 new; 3 of the run are left out"
