"""PyDataset: a data set written in Python, a batch at a time, fetched ahead by threads or processes if asked."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future


class PyDataset:
    """Base of data sets that give batches by their number. A subclass defines `__len__` and `__getitem__`.

    `self[k]` is (x,), (x, y) or (x, y, sample_weight). Instead of `__len__` it may define the property `num_batches`,
    which is None for a data set without end.

    workers              how many batches are fetched at the same time
    use_multiprocessing  by processes, to which the data set is sent (pickled), instead of threads
    max_queue_size       how many batches are fetched ahead
    """

    def __init__(self, workers: int = 1, use_multiprocessing: bool = False, max_queue_size: int = 10):
        self.workers, self.use_multiprocessing, self.max_queue_size = workers, use_multiprocessing, max_queue_size

    def __getitem__(self, index: int) -> Any:
        raise NotImplementedError(f"{type(self).__name__} must define __getitem__(index), which gives a batch")

    @property
    def num_batches(self) -> int | None:
        """The number of batches, None if there is no end."""
        if hasattr(self, "__len__"):
            return len(self)
        raise NotImplementedError(f"{type(self).__name__} must define __len__() or the property num_batches")

    def __iter__(self) -> Iterator[Any]:
        count = self.num_batches
        return (self[k] for k in (itertools.count() if count is None else range(count)))

    def on_epoch_begin(self) -> None:
        """Called when an epoch begins."""

    def on_epoch_end(self) -> None:
        """Called when an epoch has ended: a place to change the order of the data."""


def batches_of(data: Any, order: list[int] | None) -> Iterator[Any]:
    """The batches in this order (without end if it is None), several fetched ahead if the data set says so."""
    numbers: Iterable[int] = itertools.count() if order is None else order
    workers = getattr(data, "workers", 1)
    processes = getattr(data, "use_multiprocessing", False)
    if workers <= 1 and not (processes and workers):
        return (data[k] for k in numbers)
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor  # slow to import

    pool: Executor
    get: Callable[[int], Any]
    if processes:
        pool, get = ProcessPoolExecutor(workers, initializer=_hold, initargs=(data,)), _held_batch
    else:
        pool, get = ThreadPoolExecutor(workers), data.__getitem__
    return _fetched(get, iter(numbers), pool, max(workers, getattr(data, "max_queue_size", 10)))


def _fetched(get: Callable[[int], Any], numbers: Iterator[int], pool: Executor, ahead: int) -> Iterator[Any]:
    waiting: deque[Future] = deque()
    try:
        for k in itertools.islice(numbers, ahead):
            waiting.append(pool.submit(get, k))
        while waiting:
            batch = waiting.popleft().result()
            for k in itertools.islice(numbers, 1):
                waiting.append(pool.submit(get, k))
            yield batch
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_held: Any = None
"""In a process that fetches batches: the data set, sent once."""


def _hold(data: Any) -> None:
    global _held
    _held = data


def _held_batch(k: int) -> Any:
    return _held[k]
