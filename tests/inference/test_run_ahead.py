"""A generator that runs ahead of whoever takes its items."""

from __future__ import annotations

import threading

import pytest

from napari_milcnn.progress import run_ahead


def test_items_keep_their_order_and_are_made_in_one_other_thread():
    def items():
        for i in range(20):
            yield i, threading.get_ident()

    made = list(run_ahead(items(), 3))
    assert [i for i, _ in made] == list(range(20))
    (thread,) = {thread for _, thread in made}
    assert thread != threading.get_ident()


def test_no_more_items_are_made_than_asked_for():
    made, fourth = [], threading.Event()

    def items():
        for i in range(20):
            made.append(i)
            if i == 3:
                fourth.set()
            yield i

    steps = run_ahead(items(), 3)
    assert next(steps) == 0
    assert fourth.wait(30)  # one was taken, three wait
    assert next(steps) == 1
    steps.close()
    assert len(made) <= 5


def test_an_error_comes_where_its_item_would():
    def items():
        yield 1
        raise ValueError("two")

    steps = run_ahead(items(), 3)
    assert next(steps) == 1
    with pytest.raises(ValueError, match="two"):
        next(steps)


def test_closing_closes_the_generator_before_it_returns():
    closed = []

    def items():
        try:
            while True:
                yield 1
        finally:
            closed.append(threading.get_ident())

    steps = run_ahead(items(), 2)
    assert next(steps) == 1
    steps.close()
    assert len(closed) == 1
