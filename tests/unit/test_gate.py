"""The gate: first come, first served, and nobody starves."""

import threading

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
