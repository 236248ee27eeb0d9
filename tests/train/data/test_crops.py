"""Which word images are used, how often each comes up, and that batches do not depend on who makes them."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cache.errors import DptrError
from models.charset import CHARACTERS_36, Charset
from sources.labelled import Labelled
from sources.missing import UNLABELLED, NoText
from tests.helpers.pictures import picture
from train.data.crop_batches import Pictures, load, schedule
from train.data.crops import Crops, usable
from train.data.plan import Plan


def a_set(name, labels):
    return Labelled(name, labels, lambda n: picture(n, (20, 60)))


def test_labels_are_cleaned_and_losses_counted():
    labels = ["M a n", "Café", "", "  ", "汉字", "x" * 26, "$4"]
    crops = usable([a_set("a", labels)], Charset(), 25)
    assert crops.labels == ["Man", "Cafe", "$4"]
    assert crops.numbers.tolist() == [0, 1, 6]
    assert crops.folded == 1  # Café
    assert crops.dropped == {"without a label": 2, "without any ASCII character": 1, "longer than 25 characters": 1}
    small = usable([a_set("a", labels)], Charset(CHARACTERS_36), 25)
    assert small.labels == ["man", "cafe"]
    assert small.dropped["with characters outside the charset"] == 1
    assert usable([a_set("a", labels)], Charset(CHARACTERS_36), 25, strict=False).labels == ["Man", "Cafe", "$4"]
    with pytest.raises(DptrError, match="no usable word image in a: 1 without a label, 1 without any ASCII character."):
        usable([a_set("a", ["", "汉"])], Charset(), 25)


def test_empty_labels_are_used_if_asked_for():
    """Not those that are missing, cannot be read, or have nothing that the charset writes."""
    labels = ["a", "", "  ", "汉", NoText(UNLABELLED), NoText("that are not UTF-8")]
    crops = usable([a_set("a", labels)], Charset(), 25, blank=True)
    assert (crops.labels, crops.numbers.tolist()) == (["a", "", ""], [0, 1, 2])
    assert crops.dropped == {"without any ASCII character": 1, "without a label": 1, "that are not UTF-8": 1}
    assert usable([a_set("a", labels)], Charset(), 25).dropped["without a label"] == 3


def test_spaces_stay_if_the_charset_has_one():
    one = Labelled("signs", [" NO  EXIT ", "caf\u00e9 ole", " "], lambda n: b"")
    assert usable([one], Charset(), 25).labels == ["NOEXIT", "cafeole"]
    assert usable([one], Charset("NOEXITcafeol "), 25).labels == ["NO EXIT", "cafe ole"]
    assert usable([one], Charset("NOEXITcafe\u00e9ol "), 25).labels == ["NO EXIT", "caf\u00e9 ole"]


def test_unicode_charset_folds_nothing_to_ascii():
    crops = usable([a_set("vi", ["đường phố", "Cafe\u0301", "abc"])], Charset("đườngphốCaféabc"), 25)
    assert crops.labels == ["đườngphố", "Café", "abc"]
    assert crops.folded == 0


@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.integers(1, 7), st.floats(0, 3), st.integers(0, 9))
def test_each_crop_comes_as_often_as_its_weight_says(lengths, batch, weight, seed):
    half = len(lengths) // 2
    of = np.array([0] * half + [1] * (len(lengths) - half), np.int32)
    crops = Crops([], of, np.arange(len(lengths)), ["x" * n for n in lengths], Counter())
    batches = list(schedule(crops, [weight, 1.0], Plan(batch, seed), 0))
    seen = Counter(int(n) for numbers in batches for n in numbers)
    assert all(len(numbers) <= batch for numbers in batches)
    assert all(seen[n] == 1 for n in np.flatnonzero(of == 1))
    first = [seen[n] for n in np.flatnonzero(of == 0)]
    assert all(int(weight) <= count <= int(weight) + 1 for count in first)
    assert sum(first) == int(weight) * half + round((weight - int(weight)) * half)
    again = schedule(crops, [weight, 1.0], Plan(batch, seed), 0)
    assert all(np.array_equal(a, b) for a, b in zip(batches, again, strict=True))


def test_batches_hold_labels_of_similar_length():
    crops = Crops([], np.zeros(640, np.int32), np.arange(640), ["x" * (1 + n % 20) for n in range(640)], Counter())
    spans = [np.ptp([len(crops.labels[n]) for n in numbers]) for numbers in schedule(crops, [1.0], Plan(16, 0), 0)]
    assert max(spans) <= 2


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_do_not_depend_on_the_workers(workers):
    crops = usable([a_set("a", [str(n) for n in range(20)])], Charset(), 25)
    made = Pictures(crops, (16, 64), strength=1.0, seed=5)
    batches = [[0, 3, 7], [1, 2], [19, 18, 17, 16]]
    found = list(load(made, batches, workers))
    assert [b.numbers for b in found] == batches
    assert [b.labels for b in found] == [[str(n) for n in numbers] for numbers in batches]
    for n, batch in enumerate(found):
        assert batch.pictures.dtype == torch.uint8
        assert torch.equal(batch.pictures, made[n, batches[n]].pictures)
    assert not torch.equal(made[0, [3]].pictures, made[1, [3]].pictures)  # another draw, another change


def test_what_cannot_be_decoded_is_named_and_the_rest_goes_on():
    damaged = {1: b"", 2: b"no picture", 3: picture(3, (20, 60))[:100]}
    one = Labelled("a", list("abcde"), lambda n: damaged.get(n, picture(n)))
    (batch,) = load(Pictures(usable([one], Charset(), 25), (16, 64)), [range(5)], 0)
    assert batch.numbers == [0, 4]
    assert batch.labels == ["a", "e"]
    assert batch.pictures.shape == (2, 3, 16, 64)
    assert batch.broken[1] == "it is empty"
    assert batch.broken[2] == "it is not a picture"
    assert batch.broken[3].startswith("it is damaged")


def test_workers_are_gone_when_nobody_wants_their_batches():
    """Not when each has ended its batch, which takes as long as its pictures are large."""
    import time

    crops = usable([Labelled("slow", ["a"] * 40, lambda n: time.sleep(n and 20) or picture(0))], Charset(), 25)
    coming = load(Pictures(crops, (8, 16)), [[n] for n in range(40)], 2)
    next(coming)
    began = time.perf_counter()
    coming.close()
    assert time.perf_counter() - began < 5


def test_workers_that_have_not_begun_are_ended_without_a_word(monkeypatch):
    """On a busy machine one can be waiting to begin when another has ended its batch."""
    import multiprocessing
    import time

    from torch.utils.data._utils import worker

    loop = worker._worker_loop

    def late(*arguments):
        time.sleep(60 if arguments[10] else 0)  # its number
        loop(*arguments)

    monkeypatch.setattr(worker, "_worker_loop", late)
    crops = usable([Labelled("some", ["a"] * 40, lambda n: picture(0))], Charset(), 25)
    coming = load(Pictures(crops, (8, 16)), [[n] for n in range(40)], 2)
    next(coming)
    processes = multiprocessing.active_children()
    coming.close()
    for process in processes:
        process.join(5)
    time.sleep(0.1)  # in which a signal of their end arrives
    assert len(processes) == 2
    assert not any(process.is_alive() for process in processes)
