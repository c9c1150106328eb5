"""Threads of this process that each wait for a simulator of their own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager


@contextmanager
def simulator_pool(workers: int, cancel: threading.Event) -> Iterator[ThreadPoolExecutor]:
    """A pool of so many threads. Whatever ends the block early, such as Ctrl-C, sets ``cancel``, by which what is run
    in them ends its simulator, and goes on when they have ended."""
    with ThreadPoolExecutor(workers, thread_name_prefix="simulator") as pool:
        try:
            yield pool
        except BaseException:
            cancel.set()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
