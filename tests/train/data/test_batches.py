"""Which words are trained on, in what order, and what memory the decoder is given."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cache.errors import DptrError, WrongUse
from cache.space import open_space
from models.charset import Charset, characters
from pipeline.embed_text import embed_text
from pipeline.labels import collect
from sources.cleaning import hash_share
from tests.conftest import WORDS
from train.data.plan import Plan
from train.data.word_batches import MemoryLoader
from train.data.words import Words, read_words, split

CPU = torch.device("cpu")


def words(labels):
    charset = Charset()
    return Words(charset.rows(labels, max(map(len, labels))), np.arange(len(labels)), charset)


def epoch(lengths, plan, number=0, **more):
    return [b.tolist() for window in plan.windows(np.asarray(lengths), number, **more) for b in window]


lengths = st.lists(st.integers(1, 25), min_size=1, max_size=300)
few = st.lists(st.integers(1, 25), min_size=1, max_size=60)
seeds = st.integers(0, 2**31)


@given(lengths, st.integers(1, 9), seeds, st.integers(0, 5), st.integers(1, 5))
@settings(max_examples=60)
def test_an_epoch_holds_every_word_once(lengths, batch, seed, number, window):
    plan = Plan(batch, seed)
    batches = epoch(lengths, plan, number, window=window)
    assert sorted(n for b in batches for n in b) == list(range(len(lengths)))
    assert len(batches) == plan.count(len(lengths))
    assert sorted(map(len, batches))[1:] == [batch] * (len(batches) - 1)


@given(lengths, st.integers(1, 20), seeds, st.integers(1, 7), st.booleans())
@settings(max_examples=60)
def test_ranks_divide_the_batches_of_one_process(lengths, batch, seed, ranks, ordered):
    more = {"window": 3, "order": (lambda random: random.permutation(len(lengths))) if ordered else None}
    shares = [epoch(lengths, Plan(batch, seed, rank, ranks), **more) for rank in range(ranks)]
    for whole, *parts in zip(epoch(lengths, Plan(batch, seed), **more), *shares, strict=True):
        assert sorted(n for part in parts for n in part) == sorted(whole)
        sizes = list(map(len, parts))
        assert sizes == sorted(sizes, reverse=True)  # the first rank has none only if there is none
        assert sizes[0] - sizes[-1] <= 1


def test_ranks_read_few_blocks_that_others_read_too():
    """Of an epoch in blocks of 20 words, 64 of them a window, four ranks read little more than each word once."""
    random, blocks = np.random.default_rng(0), np.repeat(np.arange(1280), 20)
    lengths = random.integers(1, 26, len(blocks))

    def order(random):
        return np.argsort(random.permutation(1280)[blocks], kind="stable")

    read = 0
    for rank in range(4):
        for window in Plan(128, 0, rank, 4).windows(lengths, 0, window=10, order=order):
            read += len(set(blocks[np.concatenate(window)].tolist()))
    assert read < 1.8 * 1280


@given(lengths, st.integers(1, 9), seeds, st.integers(1, 3), st.integers(1, 4), st.data())
@settings(max_examples=60)
def test_an_epoch_begins_anywhere(lengths, batch, seed, ranks, window, data):
    plan = Plan(batch, seed, data.draw(st.integers(0, ranks - 1)), ranks)
    whole = epoch(lengths, plan, window=window)
    start = data.draw(st.integers(0, len(whole)))
    assert epoch(lengths, plan, start=start, window=window) == whole[start:]


stretch = st.tuples(st.integers(1, 9), st.integers(0, 20), st.integers(1, 3))


@given(few, st.lists(stretch, min_size=2, max_size=4), seeds, st.integers(1, 4))
@settings(max_examples=40)
def test_another_batch_leaves_no_word_of_an_epoch_out_and_shows_none_twice(lengths, stretches, seed, window):
    """A run of several sizes of batch and numbers of ranks, one batch at a time, up to the end of an epoch."""
    seen, plan, number, place = Counter(), None, 0, 0
    for batch, taken, ranks in stretches:
        plan = Plan(batch, seed, 0, ranks, plan and (plan, number))
        last = (batch, taken, ranks) == stretches[-1]
        end = number + taken
        while number < end or (last and number and plan.place(number, len(lengths), window)[0] == place):
            place, start = plan.place(number, len(lengths), window)
            shares = [replace(plan, rank=rank) for rank in range(ranks)]
            one = [n for share in shares for n in epoch(lengths, share, place, start=start, window=window)[0]]
            assert 1 <= len(one) <= batch
            seen.update((place, n) for n in one)
            number += 1
        assert plan.place(number, len(lengths), window) >= (place, 0)
    for number in range(max((e for e, _ in seen), default=-1) + 1):
        assert {seen[number, n] for n in range(len(lengths))} == {1}


def test_order_is_a_function_of_seed_and_epoch():
    found = {(s, e): epoch([1] * 500, Plan(16, s), e) for s in (0, 1) for e in (0, 1)}
    assert found[0, 0] == epoch([1] * 500, Plan(16, 0), 0)
    assert len({str(order) for order in found.values()}) == 4


def test_batches_hold_words_of_similar_length():
    some = np.array([1 + n % 20 for n in range(6400)])
    assert np.mean([np.ptp(some[b]) for b in epoch(some, Plan(64, 0))]) < 1.5


@pytest.mark.parametrize("ranks", [1, 3])
def test_sorting_by_length_changes_no_words_chance(ranks):
    """Over many epochs, every word, short or long, is equally often in the first 30 of 100 batches."""
    some = np.random.default_rng(0).integers(1, 26, 1200)
    seen, beside, epochs = np.zeros(1200), np.zeros(25), 600
    for number in range(epochs):
        for rank in range(ranks):
            windows = Plan(12, 0, rank, ranks).windows(some, number, window=10)
            batches = [batch for window in windows for batch in window]
            seen[np.concatenate(batches[:30])] += 1
            for batch in batches if ranks == 1 else []:  # the words beside the first one, by their length
                if batch.min() == 0:
                    np.add.at(beside, some[batch] - 1, 1)
    share = seen / epochs
    deviation = np.sqrt(0.3 * 0.7 / epochs)
    assert abs(share - 0.3).max() < 5 * deviation
    for length in range(1, 26):
        own = share[some == length]
        assert abs(own.mean() - 0.3) < 0.02  # words of one length come and go together
    assert ranks > 1 or abs(np.average(np.arange(1, 26), weights=beside) - some[0]) < 1


@given(st.lists(st.text("abcdef", min_size=1, max_size=25), min_size=1, max_size=50))
def test_words_are_their_labels(labels):
    found = words(labels)
    assert found.labels == labels
    assert found.lengths.tolist() == list(map(len, labels))
    assert found.take([0]).labels == labels[:1]
    assert (found.targets() == Charset().encode(labels)).all()


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
    """Row 0 is the projected end, rows 1 to 5 the prefix, then comes the rest; after it all is masked."""
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
    """With an encoder that keeps case, Exit and exit are two memories, but one word to spell."""
    from pipeline.encoder import Encoder

    encoder = Encoder("wordclip", "untrained:0", precision="fp32", device="cpu")
    embed_text(tmp_path, encoder, collect(["Exit", "exit", "$5"]), "signs", print)
    words, dropped = read_words(open_space(tmp_path), ["signs"], Charset(characters("36")), 25)
    assert words.labels == ["exit", "exit"]
    assert len(set(words.memories.tolist())) == 2
    assert dropped == {"with characters outside the charset": 1}
