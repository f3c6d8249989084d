"""The gate: first come, first served, nobody starves, and who asks beside long work has a third of the time."""

import threading
from collections.abc import Callable

import pytest

from glmstudio.models.gate import Gate


def wait_until_queued(gate: Gate, count: int) -> None:
    deadline = threading.Event()
    while len(gate._waiting) < count:
        deadline.wait(0.001)


def start_in_order(gate: Gate, names: str, log: list[str]) -> list[threading.Thread]:
    def take(name: str) -> None:
        with gate.turn():
            log.append(name)

    threads = []
    for number, name in enumerate(names, 1):
        threads.append(threading.Thread(target=take, args=(name,)))
        threads[-1].start()
        wait_until_queued(gate, number)
    return threads


def test_turns_come_in_the_order_of_asking() -> None:
    gate, log = Gate(), []
    with gate.turn():
        threads = start_in_order(gate, "abcdef", log)
        assert log == []
    for thread in threads:
        thread.join(600)
    assert log == list("abcdef")


def test_the_holder_lets_all_waiting_in_and_comes_back() -> None:
    gate, log = Gate(), []
    with gate.turn():
        gate.let_others_in()
        threads = start_in_order(gate, "abc", log)
        gate.let_others_in()
        log.append("holder")
    for thread in threads:
        thread.join(600)
    assert log == ["a", "b", "c", "holder"]


def test_only_one_holds_the_turn_while_many_ask() -> None:
    gate, inside, overlaps = Gate(), [], []

    def ask(name: int) -> None:
        for _ in range(200):
            with gate.turn():
                inside.append(name)
                overlaps.append(len(inside) > 1)
                if name == 0:
                    inside.pop()
                    gate.let_others_in()
                    inside.append(name)
                inside.pop()

    threads = [threading.Thread(target=ask, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(600)
    assert not any(thread.is_alive() for thread in threads)
    assert len(overlaps) == 800
    assert not any(overlaps)


def test_an_error_inside_a_turn_gives_it_back() -> None:
    gate = Gate()
    with pytest.raises(KeyError), gate.turn():
        raise KeyError("inside")
    log: list[str] = []
    with gate.turn():
        log.append("free")
    assert log == ["free"]


class Beside(Gate):
    """A gate on a clock of its own, long work at it, and askers on threads that want `turns` of so many seconds each,
    one behind the other; `log` is who had the model. Between two turns it waits until all who still ask are there."""

    def __init__(self) -> None:
        super().__init__(lambda: self.now)
        self.now, self.log, self.asking = 0.0, [], 0
        self.threads: list[threading.Thread] = []

    def _asked_again(self, seconds: float) -> bool:
        assert seconds > 0
        self._changed.wait_for(lambda: len(self._waiting) == self.asking)
        return self.asking > 0

    def ask(self, name: str, turns: int, seconds: float) -> None:
        def take() -> None:
            for number in range(1, turns + 1):
                with self.turn():
                    self.now += seconds
                    self.log.append(name)
                    self.asking -= number == turns

        self.asking += 1
        self.threads.append(threading.Thread(target=take))
        self.threads[-1].start()
        wait_until_queued(self, len(self.threads))

    def piece(self, seconds: float, lend: Callable[[], float]) -> float:
        """A piece of work and what is lent behind it."""
        self.now += seconds
        self.log.append("work")
        return lend()


@pytest.fixture
def beside():
    gate = Beside()
    yield gate
    for thread in gate.threads:
        thread.join(120)
        assert not thread.is_alive()


def test_who_asks_has_a_third_of_the_time_however_short_a_turn(beside):
    with beside.turn():
        assert beside.piece(6, beside.let_others_in) == 0
        beside.ask("a", 20, 0.5)
        assert beside.piece(6, beside.let_others_in) == 3
        assert beside.piece(2, beside.let_others_in) == 1
        # A turn that is longer than that is whole, and nobody waits for more than a piece.
        assert beside.piece(0.1, beside.let_others_in) == 0.5
        beside.piece(100, beside.let_others_in)
    assert beside.log == ["work", "work", *"aaaaaa", "work", *"aa", "work", "a", "work", *"a" * 11]


def test_several_share_it_and_each_has_its_turn(beside):
    with beside.turn():
        for name in "abc":
            beside.ask(name, 8, 0.5)
        beside.piece(0.2, beside.let_others_in)
        assert beside.log == ["work", *"abc"]
        beside.piece(12, beside.let_others_in)
        assert sorted(beside.log[5:]) == sorted("abc" * 4)
        beside.piece(100, beside.let_others_in)


def test_what_gives_way_waits_until_nobody_asks(beside):
    with beside.turn():
        beside.ask("a", 40, 9.0)
        assert beside.piece(0.1, beside.give_way) == 360
        beside.log.append("work")
    assert beside.log == ["work", *"a" * 40, "work"]


@pytest.mark.parametrize("way", ["let_others_in", "give_way"])
def test_the_turn_comes_back_at_once_where_it_is_wanted(beside, way):
    def lend() -> float:
        return getattr(beside, way)(until=lambda: beside.log.count("a") >= 2)

    with beside.turn():
        beside.ask("a", 9, 0.5)
        assert beside.piece(60, lend) == 1.0
        assert beside.piece(60, lend) == 0.0
        assert beside.log == ["work", *"aa", "work"]
