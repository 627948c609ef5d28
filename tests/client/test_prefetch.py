"""Batches are read ahead by one thread: in order, a few at a time, and it ends with the loop."""

import threading
import time

import pytest

from fedage.client.compute.prefetch import announcing, reading_ahead


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("batches")]


def until(reached) -> bool:
    """Whether it is reached within five seconds."""
    end = time.monotonic() + 5
    while not reached() and time.monotonic() < end:
        time.sleep(0.005)
    return reached()


@pytest.mark.parametrize("ahead", [1, 2, 9])
@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_everything_is_read_once_and_in_order(ahead, count):
    read = []
    with reading_ahead(lambda item: read.append(item) or 10 * item, range(count), ahead=ahead) as made:
        assert list(made) == [10 * item for item in range(count)]
    assert read == list(range(count))
    assert threads() == []


@pytest.mark.parametrize("ahead", [1, 2, 3])
def test_the_next_ones_are_read_while_one_is_used_and_no_more(ahead):
    read = []
    with reading_ahead(read.append, range(20), ahead=ahead) as made:
        for used in range(1, 5):
            next(made)
            assert until(lambda used=used: len(read) == used + ahead)
            time.sleep(0.02)
            assert len(read) == used + ahead


@pytest.mark.parametrize("ahead", [0, -1, -7])
def test_nothing_ahead_is_refused(ahead):
    with pytest.raises(ValueError, match="at least 1"), reading_ahead(str, range(3), ahead=ahead):
        pass
    assert threads() == []


@pytest.mark.parametrize("ahead", [1, 2])
@pytest.mark.parametrize("failing", [0, 1, 4])
def test_what_reading_raises_is_raised_where_the_item_is_asked_for(ahead, failing):
    def read(item):
        if item == failing:
            raise OSError(f"item {item}")
        return item

    got = []
    with (
        pytest.raises(OSError, match=f"item {failing}"),
        reading_ahead(read, range(9), ahead=ahead) as made,
    ):
        got.extend(made)
    # What list.extend had taken before the failure is kept.
    assert got == list(range(failing))
    assert threads() == []


@pytest.mark.parametrize("used", [0, 1, 3])
def test_the_thread_ends_with_the_loop_whatever_is_left(used):
    read = []

    def loop():
        with reading_ahead(read.append, range(1000), ahead=2) as made:
            for _ in range(used):
                next(made)
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        loop()
    assert threads() == []
    assert len(read) <= used + 2


@pytest.mark.parametrize("ahead", [1, 2, 9])
@pytest.mark.parametrize("count", [0, 1, 4])
def test_each_item_is_announced_once_and_before_the_ones_in_front_of_it_are_read(ahead, count):
    said = []
    made = announcing(
        lambda item: said.append(("read", item)) or item,
        range(count),
        announce=lambda item: said.append(("announced", item)),
        ahead=ahead,
    )
    assert list(made) == list(range(count))
    assert [item for word, item in said if word == "read"] == list(range(count))
    assert [item for word, item in said if word == "announced"] == list(range(count))
    for item in range(count):
        before = said[: said.index(("announced", item))]
        assert sum(word == "read" for word, _ in before) == max(item - ahead, 0)
