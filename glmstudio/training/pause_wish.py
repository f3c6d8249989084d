"""The wish that a run pauses, between the thread that trains and the people who ask. Knows threads only."""

import threading


class PauseWish:
    """One run's. Safe to call from several threads."""

    def __init__(self) -> None:
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    @property
    def asked(self) -> bool:
        """Whether the run is to pause, or has."""
        return not self._may_go_on.is_set()

    def ask(self) -> None:
        self._may_go_on.clear()

    def take_back(self) -> None:
        """Lets a paused run go on; one that has not paused yet does not."""
        self._may_go_on.set()

    def wait(self) -> None:
        """Until the wish is taken back."""
        self._may_go_on.wait()
