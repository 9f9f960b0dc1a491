"""Names of the config, and which addresses they have."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from offgrid_node.config import template
from offgrid_node.doctor.names import CHECKS, NAMES_MAX, resolve
from offgrid_node.doctor.subject import Subject


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
    assert resolve(["slow", "quick"], ask, answer_s=1.0) == {"quick": ("10.0.0.1",)}
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


def test_of_a_name_that_was_not_asked_for_nothing_is_said(tmp_path: Path) -> None:
    peers = [f"h{number}.invalid:7440" for number in range(NAMES_MAX + 3)]
    (tmp_path / "offgrid.toml").write_text(template("home", "here", ("core",), values={"mesh.peers": peers}))
    subject = Subject(tmp_path, {})
    subject.once("names", dict)  # none of them has an address
    said = [each.sentence for each in CHECKS[0].look(subject)]
    assert len(said) == NAMES_MAX
    assert not any(peers[NAMES_MAX].partition(":")[0] in each for each in said)
