"""How long the doctor waits for its checks."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

from offgrid_node.doctor import State
from offgrid_node.doctor.findings import Check, Needs, Said, fault
from offgrid_node.doctor.running import diagnose


def test_who_needed_all_the_time_to_read_the_config_looks_all_the_same(tmp_path: Path) -> None:
    def look(_: object) -> Iterator[Said]:
        yield fault("the disk is gone", "mount")

    [finding] = diagnose(tmp_path, [Check("disk", "the disk is there", look, Needs.NOTHING)], deadline_s=0)
    assert (finding.state, finding.sentence) == (State.FAULT, "the disk is gone")


def test_a_check_that_hangs_is_left_behind_and_the_others_are_told(tmp_path: Path) -> None:
    over = threading.Event()

    def hang(_: object) -> Iterator[Said]:
        over.wait(30)
        yield from ()

    def look(_: object) -> Iterator[Said]:
        yield from ()

    began = time.monotonic()
    checks = [Check("disk", "the disk answers", hang, Needs.NOTHING), Check("clock", "it goes", look, Needs.NOTHING)]
    slow, quick = diagnose(tmp_path, checks, deadline_s=0)
    over.set()
    assert time.monotonic() - began < 20
    assert (slow.state, quick.state) == (State.WARNING, State.OK)
    assert slow.sentence.startswith("no answer within 1.0 s")
