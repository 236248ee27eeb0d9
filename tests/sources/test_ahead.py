"""Items are made ahead, in order; an error comes where its item would; closing ends the threads."""

import threading
import time

import pytest

from sources.ahead import ahead, mapped_ahead


def counting(made, until=10, error=None):
    try:
        for n in range(until):
            made.append(n)
            yield n
        if error:
            raise error
    finally:
        made.append("closed")


def test_items_come_in_order_and_no_more_than_depth_early():
    made = []
    for n, item in enumerate(ahead(counting(made), 3)):
        assert item == n
        time.sleep(0.01)
        assert len([m for m in made if m != "closed"]) <= n + 1 + 3
    assert made[-2:] == [9, "closed"]


def test_items_are_made_while_nobody_asks():
    made = []
    items = ahead(counting(made), 2)
    next(items)
    for _ in range(200):
        if made == [0, 1, 2]:
            break
        time.sleep(0.01)
    assert made == [0, 1, 2]
    items.close()


def test_error_comes_where_its_item_would():
    found = []
    with pytest.raises(ValueError, match="broken"):
        found.extend(ahead(counting([], 3, ValueError("broken"))))
    items = ahead(counting([], 3, ValueError("broken")))
    assert [next(items) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="broken"):
        next(items)


def test_closing_ends_the_thread_and_the_items():
    before, made = threading.active_count(), []
    items = ahead(counting(made, 10**9))
    next(items)
    items.close()
    assert threading.active_count() == before
    assert made[-1] == "closed"


def test_results_keep_the_order_of_items_whichever_thread_is_faster():
    def slow(n):
        time.sleep(0.002 * (n % 3))
        return n, threading.get_ident()

    found = list(mapped_ahead(slow, range(40), 3, 5))
    assert [n for n, _ in found] == list(range(40))
    assert 1 < len({thread for _, thread in found} - {threading.get_ident()}) <= 3
    assert list(mapped_ahead(slow, [], 3, 5)) == []


def test_no_more_items_are_taken_than_depth_early_and_none_in_another_thread():
    taken = []

    def items():
        for n in range(20):
            taken.append(threading.get_ident())
            yield n

    for n, item in enumerate(mapped_ahead(lambda n: n, items(), 2, 4)):
        assert item == n
        assert len(taken) <= n + 1 + 4
    assert set(taken) == {threading.get_ident()}


def test_error_of_one_item_comes_where_its_result_would():
    results = mapped_ahead(lambda n: 6 // (3 - n), range(9), 2, 4)
    assert [next(results) for _ in range(3)] == [2, 3, 6]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_closing_ends_all_threads():
    before = threading.active_count()
    results = mapped_ahead(lambda n: n, iter(int, 1), 3, 9)
    next(results)
    results.close()
    assert threading.active_count() == before
