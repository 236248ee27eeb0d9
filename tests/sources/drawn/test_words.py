"""Which words are drawn."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from sources.drawn.words import HELD_OUT, WordSampler, cased, held_out, kept_words, read_list

LATIN = frozenset(map(chr, [*range(33, 127), *range(0xC0, 0x180)]))
MANY = [(f"{a}{b}{c}", 1.0) for a in ("ba", "co", "du", "fe") for b in ("ll", "rt", "mm", "st") for c in "aeiouyns"]


def test_list_with_and_without_frequencies(tmp_path):
    (tmp_path / "list.tsv").write_text("the\t-2\nhôtel\t-4\nstraße\t-4\n漢字\t-3\n\n" + "x" * 26 + "\t-5\n")
    characters = set(map(chr, range(33, 384)))
    assert read_list(tmp_path / "list.tsv", characters) == [("the", 0.1), ("hôtel", 0.01), ("straße", 0.01)]
    assert [word for word, _ in read_list(tmp_path / "list.tsv", characters - {"Ô"})] == ["the", "straße"]
    (tmp_path / "plain.txt").write_text("the\nof\n")
    assert read_list(tmp_path / "plain.txt", characters) == [("the", 1.0), ("of", 1.0)]


def test_held_out_words_are_never_drawn_in_any_case():
    sampler, rng = WordSampler([MANY], LATIN), random.Random(0)
    drawn = [sampler.draw(rng) for _ in range(20_000)]
    assert not any(held_out(word) for word in drawn)
    assert all(1 <= len(word) <= 25 for word in drawn)
    assert set("".join(drawn)) == LATIN
    plain = {word.casefold() for word in drawn}
    assert plain >= {word for word, _ in MANY if not held_out(word)}
    assert held_out("HOTEL") == held_out("hotel")
    assert 0.01 < sum(held_out(str(n)) for n in range(20_000)) / 20_000 < 2 * HELD_OUT


def test_spellings_that_no_list_has():
    """Words with letters lost, doubled or marked, two words in one, and characters in no order."""
    sampler, rng = WordSampler([[("letter", 1.0)]], LATIN), random.Random(0)
    seen = Counter(sampler.draw(rng).casefold() for _ in range(20_000))
    assert seen["letter"] > 7_000
    for word in ("leter", "lletter", "letterletter", "lëtter", "etter", "elttER".casefold()):
        assert seen[word] > 0, word
    places = {(n, c) for word in seen for n, c in enumerate(word[:5])}
    assert {(n, c) for n in range(5) for c in "abcdefghijklmnopqrstuvwxyz0123456789"} <= places


def test_words_keep_to_their_characters():
    sampler, rng = WordSampler([[("hotel", 1.0)]], frozenset("hotelHOTEL")), random.Random(0)
    assert {c for _ in range(500) for c in sampler.draw(rng)} == set("hotelHOTEL")


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
