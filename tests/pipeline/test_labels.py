"""Every line read becomes a label, or is counted with the reason why not."""

import gc
import threading

from hypothesis import given
from hypothesis import strategies as st

from pipeline.labels import collect


def test_unicode_is_kept_in_one_normal_form():
    texts = ["Café", "Cafe\u0301", "đường  phố", "汉字", "ﬁsh", " ", "اسم"]
    labels = collect(texts, keep_unicode=True)
    assert dict(labels) == {"Café": 2, "đườngphố": 1, "汉字": 1, "ﬁsh": 1, "اسم": 1}
    assert (labels.altered, labels.dropped) == (0, {"empty": 1})


def test_losses_are_counted_by_reason():
    labels = collect(["Hello", "", "  ", "Hello", "汉字", "x" * 26, "naïve", "a b"])
    assert [label for label, _ in collect(["a", "b", "a"])] == ["a", "b"]  # nobody else holds these labels
    assert dict(labels) == {"Hello": 2, "naive": 1, "ab": 1}
    assert labels.dropped == {"empty": 2, "without any ASCII character": 1, "longer than 25 characters": 1}
    assert labels.altered == 1
    assert labels.report().startswith("8 read, 3 different labels; 2 empty; 1 without")


def test_labels_may_be_let_go_in_another_thread():
    """As the garbage collector does with labels that an exception kept alive; a warning would be an error here."""
    held = [collect(["a"])]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    gc.collect()
    assert not held


@given(st.lists(st.text()))
def test_nothing_is_lost_silently(texts):
    labels = collect(texts)
    assert labels.read == len(texts) == sum(dict(labels).values()) + sum(labels.dropped.values())
    assert all(label.isascii() and not any(c.isspace() for c in label) and label for label, _ in labels)


def test_spaces_are_kept_if_asked_for():
    texts = ["New  York", " caf\u00e9 ole\n", "a b", "ab", " "]
    assert [label for label, _ in collect(texts)] == ["NewYork", "cafeole", "ab"]
    kept = collect(texts, keep_spaces=True)
    assert [label for label, _ in kept] == ["New York", "cafe ole", "a b", "ab"]
    assert (kept.altered, kept.dropped) == (1, {"empty": 1})
    assert "caf\u00e9 ole" in dict(collect(texts, keep_unicode=True, keep_spaces=True))
