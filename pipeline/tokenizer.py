"""Text to token ids as open_clip's tokenizers do it, start and end tokens included, of any length."""

import unicodedata
from functools import cache
from itertools import pairwise, repeat
from typing import Protocol

import open_clip
from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

from cache.errors import DptrError, WrongUse
from pipeline.weights import model_config

KNOWN = 1 << 16  # most pieces of text remembered, so that memory does not grow with the source
NEVER = 1 << 30  # stands for a pair that is not merged


class Tokenizer(Protocol):
    """Turns text into token ids."""

    name: str  # whatever decides its ids, for the fingerprint
    pad: int  # the id after the end token
    context: int  # positions of the text tower
    size: int  # number of ids

    def ids(self, text: str) -> list[int]:
        """Token ids from start to end token, possibly more than the context."""


class BytePairs:
    """CLIP's byte-pair encoding. Plain text skips the repair of broken characters, which takes most of the time."""

    pad = 0

    def __init__(self, tokenizer: SimpleTokenizer) -> None:
        self.context = int(tokenizer.context_length)
        clean = getattr(tokenizer.clean_fn, "__name__", "")
        self.size = int(tokenizer.vocab_size)
        self.name = f"clip-bpe {self.size} {clean}"
        self._tokenizer, self._lower = tokenizer, clean == "_clean_lower"
        self._quick = clean in ("_clean_lower", "_clean_whitespace")
        self._pieces: dict[str, list[int]] = {}
        number = tokenizer.encoder  # tokens are numbered in the order in which they were learnt
        self._pairs = {(number[a], number[b]): number[a + b] for a, b in tokenizer.bpe_ranks}
        self._special = {token: token for token in tokenizer.cache}  # what a fresh tokenizer remembers

    def ids(self, text: str) -> list[int]:
        """As in Tokenizer."""
        found = [self._tokenizer.sot_token_id]
        # printable ASCII without entities and tags comes out of the repair as it went in; no token crosses a space
        if self._quick and text.isascii() and text.isprintable() and "&" not in text and "<" not in text:
            for piece in (text.lower() if self._lower else text).split():
                found += self._pieces.get(piece) or self._learn(piece)
        else:
            found += self._tokenizer.encode(text)
            if len(self._tokenizer.cache) > KNOWN:
                self._tokenizer.cache = dict(self._special)
        return [*found, self._tokenizer.eot_token_id]

    def _learn(self, piece: str) -> list[int]:
        ids = [n for token in self._tokenizer.pat.findall(piece) for n in self._merged(token)]
        if len(self._pieces) == KNOWN:
            self._pieces.clear()
        self._pieces[piece] = ids
        return ids

    def _merged(self, token: str) -> list[int]:
        """Merges one pair at a time, the earliest learnt first; the pairs inside a pair were learnt before it."""
        number, pairs = self._tokenizer.encoder, self._pairs
        ids = [*map(number.__getitem__, token[:-1]), number[f"{token[-1]}</w>"]]
        found = [*map(pairs.get, pairwise(ids), repeat(NEVER))]
        while found and (best := min(found)) != NEVER:
            n = found.index(best)
            ids[n] = best
            del ids[n + 1], found[n]
            if n:
                found[n - 1] = pairs.get((ids[n - 1], best), NEVER)
            if n < len(found):
                found[n] = pairs.get((best, ids[n + 1]), NEVER)
        return ids


class HuggingFace:
    """A tokenizer of transformers, as open_clip calls it."""

    def __init__(self, tokenizer: HFTokenizer) -> None:
        self.context = int(tokenizer.context_length)
        inner = tokenizer.tokenizer
        clean = getattr(tokenizer.clean_fn, "__name__", "")
        self.size = len(inner)
        self.name = f"{type(inner).__name__} {self.size} {clean}{' without sep' * tokenizer.strip_sep_token}"
        self.pad = int(inner.pad_token_id or 0)
        self._tokenizer = tokenizer

    def ids(self, text: str) -> list[int]:
        """As in Tokenizer."""
        inner = self._tokenizer.tokenizer
        ids = inner(self._tokenizer.clean_fn(text)).input_ids
        return [0 if self._tokenizer.strip_sep_token and i == inner.sep_token_id else int(i) for i in ids]


class Characters:
    """One token for each character of a table; any other character becomes one token for each byte of its UTF-8.

    Ids: 0 starts a text, then come the 256 bytes, the table, and the end: open_clip looks for the highest id.
    """

    pad = 0

    def __init__(self, characters: str, context: int) -> None:
        """`characters` is the table, in the order of their ids."""
        self.context, self.size = context, 1 + 256 + len(characters) + 1
        self.name = f"characters {characters}"
        self.number = {character: n for n, character in enumerate(characters, 1 + 256)}

    def ids(self, text: str) -> list[int]:
        """As in Tokenizer. The text is composed (NFC), its blanks are stripped and joined."""
        characters = unicodedata.normalize("NFC", " ".join(text.split()))
        try:  # all at once, unless one is not in the table
            return [0, *map(self.number.__getitem__, characters), self.size - 1]
        except KeyError:
            return [0, *(n for character in characters for n in self._spelt(character)), self.size - 1]

    def _spelt(self, character: str) -> list[int]:
        known = self.number.get(character)
        return [known] if known else [1 + byte for byte in character.encode("utf-8", "surrogatepass")]


@cache
def tokenizer_of(model: str) -> Tokenizer:
    """The tokenizer of an open_clip model, the same for all encoders of a process.

    WrongUse if it is not supported or not installed; DptrError if its files cannot be fetched.
    """
    text = model_config(model).get("text_cfg", {})
    if table := (text.get("tokenizer_kwargs") or {}).get("characters"):
        return Characters(table, text["context_length"])
    try:
        tokenizer = open_clip.get_tokenizer(model)
    except ImportError as error:
        raise WrongUse(f"the tokenizer of {model} needs transformers: pip install 'dptr[multilingual]'.") from error
    except Exception as error:  # an unreachable hub may raise anything
        raise DptrError(f"the tokenizer of {model} could not be fetched or loaded: {error}") from error
    if isinstance(tokenizer, SimpleTokenizer):
        return BytePairs(tokenizer)
    if isinstance(tokenizer, HFTokenizer) and not tokenizer.tokenizer_mode:
        return HuggingFace(tokenizer)
    raise WrongUse(f"{model} has a tokenizer ({type(tokenizer).__name__}) that dptr does not know: choose another one.")
