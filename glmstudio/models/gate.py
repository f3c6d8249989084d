"""Whose turn it is on the resident model: a first-come, first-served gate. Knows threads only: no model, no tensors.

A plain lock starves the side with the shorter turns, because whoever lets go of it can take it back at once. A turn for
a turn starves it, too: a token takes a hundredth of a training step. So long work lends its turn for a share of time.
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Of the time, what others get of long work while they ask.
SHARE = 1 / 3
# Seconds between two tokens of an answer in which it is still asking: a token is picked, shown and waited for.
BETWEEN_TURNS = 0.2


def _never() -> bool:
    return False


class Gate:
    """One turn at a time, in the order of asking. Not re-entrant: asking again inside a turn waits forever.

    `clock` gives seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._changed = threading.Condition()
        self._taken = self._lent = False
        self._waiting: deque[threading.Event] = deque()
        # Since when the turn has been its holder's without a look at who waits.
        self._held_since = 0.0

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Waits for the turn and holds it inside the `with` block."""
        self._wait()
        try:
            yield
        finally:
            self._hand_over()

    def let_others_in(self, *, until: Callable[[], bool] = _never) -> float:
        """For the holder of a turn, between two pieces of its work: everyone who waits now goes first, once; then they
        may ask again until they had `SHARE` of the time, or half as long as the piece took. Gives the seconds away.

        It comes back between two turns, at the first where `until` says so.
        """
        piece = self._clock() - self._held_since
        return self._lend(piece * SHARE / (1 - SHARE), until)

    def give_way(self, *, until: Callable[[], bool] = _never) -> float:
        """As `let_others_in`, for as long as anybody asks: what nobody waits for goes behind everything else."""
        return self._lend(math.inf, until)

    @contextmanager
    def away(self) -> Iterator[None]:
        """For the holder of a turn: gives it back inside the `with` block and waits for the next one behind it."""
        self._hand_over()
        try:
            yield
        finally:
            self._wait()

    def _lend(self, seconds: float, until: Callable[[], bool]) -> float:
        began = now = self._clock()
        with self._changed:
            if self._lent:
                # A turn that is lent itself goes back to its owner.
                return 0.0
            first = len(self._waiting)
            while self._waiting and not until():
                self._lent = True
                self._waiting.popleft().set()
                self._changed.wait_for(lambda: not self._lent)
                first, now = first - 1, self._clock()
                left = began + seconds - now
                if first <= 0 and (left <= 0 or not self._asked_again(min(left, BETWEEN_TURNS))):
                    break
            self._held_since = self._clock()
        return self._held_since - began

    def _asked_again(self, seconds: float) -> bool:
        return self._changed.wait_for(lambda: bool(self._waiting), seconds)

    def _wait(self) -> None:
        mine = threading.Event()
        with self._changed:
            if self._taken:
                self._waiting.append(mine)
                self._changed.notify()
            else:
                self._taken = True
                mine.set()
        mine.wait()
        if not self._lent:
            self._held_since = self._clock()

    def _hand_over(self) -> None:
        with self._changed:
            if self._lent:
                self._lent = False
                self._changed.notify()
            elif self._waiting:
                self._waiting.popleft().set()
            else:
                self._taken = False
