"""Reading ahead: the next batches are read by one thread while the present one is computed on.

PyTorch's `DataLoader` reads ahead in other processes only, which an agent does not start. MONAI's `ThreadBuffer` (1.6)
takes a read that fails for the end: an epoch would be cut short without a word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TypeVar

BATCHES_AHEAD = 2

Item = TypeVar("Item")
Made = TypeVar("Made")


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
    ahead
        0 reads each item when it is asked for, in the caller's thread.
    """
    if ahead == 0:
        yield map(read, items)
        return
    with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
        try:
            yield _made(pool, read, items, ahead=ahead)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _made(
    pool: ThreadPoolExecutor, read: Callable[[Item], Made], items: Sequence[Item], *, ahead: int
) -> Iterator[Made]:
    left = iter(items)
    waiting: deque[Future[Made]] = deque(pool.submit(read, item) for item in islice(left, ahead))
    while waiting:
        made = waiting.popleft().result()
        waiting.extend(pool.submit(read, item) for item in islice(left, 1))
        yield made
        del made  # else it would be kept until the next one is there
