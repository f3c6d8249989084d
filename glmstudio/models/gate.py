"""Whose turn it is on the resident model: a first-come, first-served gate. Knows threads only: no model, no tensors.

A plain lock starves the side with the shorter turns, because whoever lets go of it can take it back at once.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Gate:
    """One turn at a time, in the order of asking. Not re-entrant: asking again inside a turn waits forever."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._taken = False
        self._waiting: deque[threading.Event] = deque()

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for the turn and holds it inside the `with` block."""
        self._wait()
        try:
            yield
        finally:
            self._hand_over()

    def let_others_in(self) -> None:
        """For the holder of a turn: everyone who waits now goes first, then the turn comes back."""
        if not self._waiting:
            return
        mine = threading.Event()
        with self._lock:
            self._waiting.append(mine)
            self._waiting.popleft().set()
        mine.wait()

    @contextmanager
    def away(self) -> Iterator[None]:
        """For the holder of a turn: gives it back inside the `with` block and waits for the next one behind it."""
        self._hand_over()
        try:
            yield
        finally:
            self._wait()

    def _wait(self) -> None:
        with self._lock:
            if not self._taken:
                self._taken = True
                return
            mine = threading.Event()
            self._waiting.append(mine)
        mine.wait()

    def _hand_over(self) -> None:
        with self._lock:
            if self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False
