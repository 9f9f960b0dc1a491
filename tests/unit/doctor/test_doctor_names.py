"""Names of the config, and which addresses they have."""

from __future__ import annotations

import threading
import time

from offgrid_node.doctor.names import NAMES_MAX, resolve


def test_each_name_is_asked_for_and_those_without_an_address_are_left_out() -> None:
    def ask(name: str) -> list[str]:
        if name == "nobody":
            raise OSError("unknown")
        return [] if name == "empty" else [f"10.0.0.{len(name)}"]

    assert resolve(["barn", "attic", "nobody", "empty", "barn"], ask) == {"barn": ("10.0.0.4",), "attic": ("10.0.0.5",)}


def test_a_server_that_does_not_answer_holds_nothing_up() -> None:
    over = threading.Event()

    def ask(name: str) -> list[str]:
        if name == "slow":
            over.wait(30)
        return ["10.0.0.1"]

    began = time.monotonic()
    assert resolve(["slow", "quick"], ask, answer_s=0.3) == {"quick": ("10.0.0.1",)}
    assert time.monotonic() - began < 10
    over.set()


def test_so_many_are_asked_for_and_each_once() -> None:
    asked: list[str] = []

    def ask(name: str) -> list[str]:
        asked.append(name)
        return ["10.0.0.1"]

    names = [f"h{number // 2}" for number in range(2 * NAMES_MAX + 2)]
    assert resolve(names, ask).keys() == {f"h{number}" for number in range(NAMES_MAX)}
    assert len(asked) == NAMES_MAX
