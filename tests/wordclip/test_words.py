"""Which words are drawn."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from wordclip.words import HELD_OUT, WordSampler, cased, held_out, kept_words, read_list

MANY = [(f"{a}{b}{c}", 1.0) for a in ("ba", "co", "du", "fe") for b in ("ll", "rt", "mm", "st") for c in "aeiouyns"]


def test_list_with_and_without_frequencies(tmp_path):
    (tmp_path / "list.tsv").write_text("the\t-2\nhôtel\t-4\nstraße\t-4\n漢字\t-3\n\n" + "x" * 26 + "\t-5\n")
    characters = set(map(chr, range(33, 384)))
    assert read_list(tmp_path / "list.tsv", characters) == [("the", 0.1), ("hôtel", 0.01), ("straße", 0.01)]
    assert [word for word, _ in read_list(tmp_path / "list.tsv", characters - {"Ô"})] == ["the", "straße"]
    (tmp_path / "plain.txt").write_text("the\nof\n")
    assert read_list(tmp_path / "plain.txt", characters) == [("the", 1.0), ("of", 1.0)]


def test_held_out_words_are_never_drawn_in_any_case(encoder):
    sampler, rng = WordSampler([MANY], encoder.prompt.tokens), random.Random(0)
    drawn = [sampler.draw(rng) for _ in range(20_000)]
    assert not any(held_out(word) for word in drawn)
    assert all(1 <= len(word) <= 25 for word in drawn)
    plain = {word.casefold() for word in drawn}
    assert plain >= {word for word, _ in MANY if not held_out(word)}
    assert held_out("HOTEL") == held_out("hotel")
    assert 0.01 < sum(held_out(str(n)) for n in range(20_000)) / 20_000 < 2 * HELD_OUT


def test_a_rare_words_tokens_are_met_too(encoder):
    """One word has all the frequency, but the share drawn by tokens shows the other word's tokens as often."""
    sampler, rng = WordSampler([[("the", 1e9), ("zymurgy", 1.0)]], encoder.prompt.tokens), random.Random(0)
    seen = Counter(sampler.draw(rng).casefold() for _ in range(2000))
    assert seen["zymurgy"] > 200
    assert seen["the"] > 800


def test_shares_of_cases():
    rng = random.Random(0)
    seen = Counter(cased("hotel", rng, 0.45, 0.25) for _ in range(10_000))
    assert 0.42 < seen["HOTEL"] / 10_000 < 0.48
    assert 0.22 < seen["Hotel"] / 10_000 < 0.28
    assert 0.25 < seen["hotel"] / 10_000 < 0.32


@given(st.lists(st.text("abc", min_size=1, max_size=4), max_size=60), st.integers(0, 5))
def test_kept_words_are_held_out_and_differ(words, count):
    entries = [(word, 1.0) for word in words]
    kept = kept_words([entries, entries[::2]], count, 1)
    assert len(kept) <= count
    assert all(held_out(word) for word in kept)
    assert len({word.casefold() for word in kept}) == len(kept)
    assert len(kept) == min(count, len({word for word in words if held_out(word)}))
    assert kept == kept_words([entries, entries[::2]], count, 1)
