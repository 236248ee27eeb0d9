"""Items are made ahead, in order; an error comes where its item would; closing ends the thread."""

import threading
import time

import pytest

from sources.ahead import ahead


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
