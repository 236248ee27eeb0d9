"""A trained decoder for another charset: it keeps what it has learnt of characters that both have."""

from dataclasses import replace

import torch

from cache.errors import WrongUse
from models.decoders import TextDecoder, make

# The weights that have a row for each id: those of EOS and characters, and those of BOS and PAD as well
PER_CHARACTER = ("head.weight", "head.bias", "embedding.weight")


def with_characters(decoder: TextDecoder, characters: str) -> TextDecoder:
    """A decoder like this one that writes `characters`, on the CPU and in training mode.

    Rows of the head and of the embedding of ids are this decoder's for EOS, BOS, PAD and all characters that it has;
    those of other characters are a new decoder's. All other weights are this decoder's. Raises WrongUse if it has none
    of the characters, or keeps other weights for each character, which only its own kind could sort.
    """
    before = decoder.charset.characters
    if not set(before) & set(characters):
        raise WrongUse(
            f"none of the {len(characters):,} characters of --charset is among the {len(before):,} that the run of "
            "--init knows: pre-train with this charset."
        )
    made = make(replace(decoder.config, characters=characters))
    old, new = _ids(before), _ids(characters)
    both = [(new[name], old[name]) for name in new if name in old]
    weights, longer = made.state_dict(), _shapes(decoder, before + _another(before))
    with torch.no_grad():
        for name, tensor in decoder.state_dict().items():
            if name in PER_CHARACTER:
                here = [(to, of) for to, of in both if of < len(tensor)]
                to, of = zip(*here, strict=True)
                weights[name][list(to)] = tensor[list(of)]
            elif longer[name] != tensor.shape:
                raise WrongUse(
                    f"the decoder {decoder.config.kind} has {name} for each character, which cannot be taken to "
                    "another charset: leave out --charset."
                )
            else:
                weights[name].copy_(tensor)
    return made


def carried(before: str, now: str) -> str:
    """What `with_characters` keeps, in a line.

    >>> carried("abc", "bcde")
    '2 of 4 characters known, 2 new; 1 of the run is left out'
    """
    known = len(set(before) & set(now))
    text = f"{known:,} of {len(now):,} characters known, {len(now) - known:,} new"
    gone = len(before) - known
    return text if not gone else f"{text}; {gone:,} of the run {'is' if gone == 1 else 'are'} left out"


def _ids(characters: str) -> dict[str, int]:
    """The id of each character and of each special token, as `Charset` numbers them."""
    return {name: n for n, name in enumerate(["EOS", *characters, "BOS", "PAD"])}


def _another(characters: str) -> str:
    return next(c for c in map(chr, range(len(characters) + 1)) if c not in characters)


def _shapes(decoder: TextDecoder, characters: str) -> dict[str, torch.Size]:
    """The shapes of the weights that it would have for these characters; nothing is computed or drawn."""
    with torch.device("meta"):
        made = make(replace(decoder.config, characters=characters))
    return {name: tensor.shape for name, tensor in made.state_dict().items()}
