"""Which words train, in what order, and what memory the decoder is given."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import DptrError, WrongUse
from cache.space import open_space
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from tests.conftest import WORDS
from train.batches import MemoryLoader, Words, epoch_batches, hash_share, read_words, split
from train.charset import Charset, characters

CPU = torch.device("cpu")


def words(labels):
    return Words(list(labels), np.arange(len(labels)))


@given(st.lists(st.text("abcdef", min_size=1), unique=True, min_size=1), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=50)
def test_an_epoch_holds_every_word_once(labels, batch, seed):
    batches = list(epoch_batches(words(labels), batch, seed, 0))
    assert Counter(label for b in batches for label in b.labels) == Counter(labels)
    assert all(len(b) <= batch for b in batches)
    for b in batches:
        assert [labels[n] for n in b.memories] == b.labels


def test_order_is_a_function_of_seed_and_epoch():
    corpus = words([str(n) for n in range(500)])

    def order(seed, epoch):
        return [label for b in epoch_batches(corpus, 16, seed, epoch) for label in b.labels]

    assert order(0, 0) == order(0, 0)
    assert len({tuple(order(s, e)) for s in (0, 1) for e in (0, 1)}) == 4


def test_batches_hold_words_of_similar_length():
    corpus = words(["x" * (1 + n % 20) for n in range(6400)])
    spread = [max(map(len, b.labels)) - min(map(len, b.labels)) for b in epoch_batches(corpus, 64, 0, 0)]
    assert np.mean(spread) < 1.5


def test_held_out_words_follow_their_hash_alone():
    labels = [f"word{n}" for n in range(20_000)]
    held = [label for label in labels if hash_share(label) < 0.05]
    assert 900 < len(held) < 1100
    training, held_out = split(words(labels[::-1]), 0.05)
    assert set(held_out.labels) == set(held)
    assert not set(training.labels) & set(held)
    assert all(hash_share(label.upper()) == hash_share(label) for label in held)
    # a larger share holds out more, never others, and the first of them are the same
    assert split(words(labels), 0.1)[1].labels[: len(held)] == held_out.labels


@pytest.fixture(scope="module")
def two_layouts(encoder, full_encoder, tmp_path_factory):
    folders = [tmp_path_factory.mktemp("compact"), tmp_path_factory.mktemp("full")]
    for folder, one in zip(folders, (encoder, full_encoder), strict=True):
        embed_text(folder, one, collect([*WORDS, "x" * 25]), "words", print)
    return [open_space(folder) for folder in folders]


def test_compact_memory_is_the_full_one_up_to_its_end(two_layouts, encoder):
    """Row 0 the projected end, rows 1..5 the prefix, then the rest; behind it the mask says no."""
    compact, full = two_layouts
    charset = Charset()
    corpus, _ = read_words(compact, ["words"], charset, 25)
    memory, mask = MemoryLoader(compact, CPU).load(corpus)
    other, _ = read_words(full, ["words"], charset, 25)
    expected, no_mask = MemoryLoader(full, CPU).load(other)
    assert no_mask is None
    assert expected.shape == (13, 78, 64)
    for n, label in enumerate(corpus.labels):
        rows = len(encoder.prompt.ids(label)) + 1
        assert mask[n].tolist() == [True] * rows + [False] * (mask.shape[1] - rows)
        reference = expected[other.labels.index(label), :rows]
        assert (memory[n, :rows] - reference).abs().max() < 2e-2
        assert (memory[n, 1:rows] - reference[1:]).abs().max() < 4e-3


def test_labels_that_cannot_be_written_are_counted(cache, encoder, tmp_path):
    embed_text(tmp_path, encoder, collect(["abc", "x" * 30], max_length=40), "words", print)
    found, dropped = read_words(open_space(tmp_path), ["words"], Charset("abc"), 25)
    assert (found.labels, dropped) == (["abc"], {"longer than 25 characters": 1})
    found, dropped = read_words(open_space(cache), ["numbers"], Charset("0123456"), 25)
    assert dropped["with characters outside the charset"] == 900 - len(found)
    with pytest.raises(DptrError, match="no usable label"):
        read_words(open_space(cache), ["numbers"], Charset("x"), 25)


def test_several_corpora_are_read_as_one(tmp_path, encoder):
    embed_text(tmp_path, encoder, collect(["a", "b"]), "one", print)
    embed_text(tmp_path, encoder, collect(["b", "c"]), "two", print)
    found, _ = read_words(open_space(tmp_path), ["one", "two"], Charset(), 25)
    assert found.labels == ["a", "b", "c"]
    with pytest.raises(WrongUse, match="no corpus 'three'"):
        read_words(open_space(tmp_path), ["one", "three"], Charset(), 25)


def test_label_without_its_memory_is_an_error(tmp_path, encoder):
    embed_text(tmp_path, encoder, collect(["a", "b"]), "one", print)
    space = open_space(tmp_path)
    (space.folder / "memories" / "manifest.jsonl").write_text("")
    with pytest.raises(DptrError, match="2 labels of corpus 'one' have no memory"):
        read_words(space, ["one"], Charset(), 25)


def test_charset_of_one_case_keeps_both_memories_of_a_word(tmp_path):
    """With an encoder that keeps case, Exit and exit are two memories, and one word to write."""
    from pipeline.encoder import Encoder

    encoder = Encoder("wordclip", "untrained:0", precision="fp32", device="cpu")
    embed_text(tmp_path, encoder, collect(["Exit", "exit", "$5"]), "signs", print)
    words, dropped = read_words(open_space(tmp_path), ["signs"], Charset(characters("36")), 25)
    assert words.labels == ["exit", "exit"]
    assert len(set(words.memories.tolist())) == 2
    assert dropped == {"with characters outside the charset": 1}
