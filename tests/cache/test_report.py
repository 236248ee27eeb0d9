"""What people read is in words."""

from collections import Counter

from cache.report import counts


def test_counts_by_reason_are_words():
    assert counts(Counter({"without a label": 1200, "empty": 2})) == "1,200 without a label, 2 empty"
    assert counts({}) == ""
