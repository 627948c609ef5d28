"""Reading ahead: the next batches are fetched while the present one is computed on.

On the CPU the kernel fetches them, which is told what will be read; a thread of this process would only compete with
the computation. Before a GPU a thread reads and copies them, too, because the loop waits for the GPU.

PyTorch's `DataLoader` reads ahead in other processes only, which an agent does not start. MONAI's `ThreadBuffer` (1.6)
takes a read that fails for the end: an epoch would be cut short without a word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import Empty, SimpleQueue
from threading import Thread
from typing import TypeVar

BATCHES_AHEAD = 2

Item = TypeVar("Item")
Made = TypeVar("Made")


def announcing(
    read: Callable[[Item], Made],
    items: Sequence[Item],
    *,
    announce: Callable[[Item], object],
    ahead: int = BATCHES_AHEAD,
) -> Iterator[Made]:
    """`read` of each item in order, when it is asked for; each is announced while the `ahead` items before it are used.

    Parameters
    ----------
    read, announce
        Called in the caller's thread.
    items
        Of the batches.
    """
    for item in items[:ahead]:
        announce(item)
    for number, item in enumerate(items):
        if number + ahead < len(items):
            announce(items[number + ahead])
        yield read(item)


@contextmanager
def reading_ahead(
    read: Callable[[Item], Made], items: Sequence[Item], *, ahead: int = BATCHES_AHEAD
) -> Iterator[Iterator[Made]]:
    """`read` of each item in order; at most `ahead` of them are read before they are asked for.

    The thread has ended when the context is left, after at most the one read that it was in.

    Parameters
    ----------
    read
        Called in the thread, one item at a time. What it raises is raised where that item is asked for.
    items
        Of the batches.

    Raises
    ------
    ValueError
        If `ahead` is below 1.
    """
    if ahead < 1:
        raise ValueError(f"ahead={ahead} must be at least 1")
    # Two plain queues: a thread pool's futures took a fifth of the time of a small network's training.
    requests: SimpleQueue[Callable[[], Made] | None] = SimpleQueue()
    answered: SimpleQueue[Made | _Failed] = SimpleQueue()
    reader = Thread(target=_answer, args=(requests, answered), name="batches", daemon=True)
    reader.start()
    try:
        yield _made(read, items, requests, answered, ahead=ahead)
    finally:
        _empty(requests)
        requests.put(None)
        reader.join()


class _Failed:
    """What a read raised."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _answer(requests: SimpleQueue[Callable[[], Made] | None], answered: SimpleQueue[Made | _Failed]) -> None:
    """Read what is asked for until None is."""
    while (read := requests.get()) is not None:
        try:
            answered.put(read())
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is raised where the item is asked for)
            answered.put(_Failed(error))


def _made(
    read: Callable[[Item], Made],
    items: Sequence[Item],
    requests: SimpleQueue[Callable[[], Made] | None],
    answered: SimpleQueue[Made | _Failed],
    *,
    ahead: int,
) -> Iterator[Made]:
    for item in items[:ahead]:
        requests.put(partial(read, item))
    for number in range(len(items)):
        made = answered.get()
        if isinstance(made, _Failed):
            raise made.error
        if number + ahead < len(items):
            requests.put(partial(read, items[number + ahead]))
        yield made
        del made  # else it would be kept until the next one is there


def _empty(requests: SimpleQueue[Callable[[], Made] | None]) -> None:
    """Nothing of what is still asked for is read."""
    while True:
        try:
            requests.get_nowait()
        except Empty:
            return
