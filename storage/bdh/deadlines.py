"""Interrupting queries that take too long: one thread for all of them, not one each."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Deadlines:
    """Calls ``interrupt`` of what is still running at its deadline. The thread starts with the first one."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._heap: list[tuple[float, int]] = []
        self._running: dict[int, Callable[[], None]] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None

    @contextmanager
    def interrupted_after(self, seconds: float, interrupt: Callable[[], None]) -> Iterator[None]:
        """Within the block, ``interrupt`` is called once when the time is over; never after it."""
        number = next(self._numbers)
        deadline = self._monotonic() + seconds
        with self._changed:
            self._running[number] = interrupt
            heapq.heappush(self._heap, (deadline, number))
            if self._heap[0][1] == number:
                self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="history-deadlines", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._changed:
                self._running.pop(number, None)

    def _watch(self) -> None:
        with self._changed:
            while True:
                while self._heap and self._heap[0][1] not in self._running:
                    heapq.heappop(self._heap)
                if not self._heap:
                    self._changed.wait()
                    continue
                left = self._heap[0][0] - self._monotonic()
                if left > 0:
                    self._changed.wait(left)
                    continue
                _, number = heapq.heappop(self._heap)
                self._running.pop(number)()
