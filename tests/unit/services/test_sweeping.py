"""What owners have begun to bring and left is swept while the host runs, after a week; what goes on is not."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from bulk_world import Node, World
from rotting import with_files
from test_scrub import Turns

from offgrid_node.protocol.errors import NotFound, Unavailable
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.objects.incoming import Admission
from offgrid_node.services.objects.sweeping import LOOK_MS, Sweeping
from offgrid_node.storage.blobs import STAGED, STAGED_AGE_MAX_S, FileBlobs

OBJECT = "o-" + "a" * 32


class Half:
    """A host with real files that an owner has brought all of an object, and then went away."""

    def __init__(self, folder: Path) -> None:
        self.world, self.folder = World(1), folder
        self.host: Node = with_files(self.world, folder)
        self.world.bend = lambda letter: NotFound("lost") if letter.short == "CommitReplica" else None
        self.object_id = self.world.owner.put(b"x" * 500).object_id
        self.world.bend = lambda letter: NotFound("away")

    def age(self, seconds: float) -> None:
        for file in (self.folder / STAGED).iterdir():
            os.utime(file, (time.time() - seconds, time.time() - seconds))

    def look(self) -> None:
        turns = Turns()
        sweeping = Sweeping(self.host.replicas.admission, self.host.blobs, self.host.bulk, turns)
        sweeping.start()
        turns.take()
        assert turns.pauses == [LOOK_MS, LOOK_MS]

    @property
    def staged(self) -> int:
        return len(self.host.blobs.all_staged())


@pytest.fixture
def half(tmp_path: Path) -> Half:
    half = Half(tmp_path)
    assert half.staged == 1
    return half


def test_what_nobody_has_open_goes_after_a_week(half: Half) -> None:
    half.host.restart()
    half.age(STAGED_AGE_MAX_S - 60)
    half.look()
    assert half.staged == 1
    half.age(STAGED_AGE_MAX_S + 60)
    half.look()
    assert half.staged == 0


def test_what_is_open_stays_until_it_was_left_for_a_week_whatever_the_clock_says(half: Half) -> None:
    half.age(10 * STAGED_AGE_MAX_S)
    half.look()
    assert half.staged == 1
    admission, owner = half.host.replicas.admission, half.world.owner.node_id
    incoming = admission.find(owner, half.object_id)
    assert incoming is not None
    incoming.used_ms -= STAGED_AGE_MAX_S * 1_000
    half.look()
    assert half.staged == 0
    assert admission.find(owner, half.object_id) is None


def test_its_owner_begins_again_and_has_it_kept(half: Half) -> None:
    half.host.restart()
    half.age(STAGED_AGE_MAX_S + 60)
    half.look()
    half.world.bend = lambda letter: None
    half.world.pass_ms(120_000)
    assert [*half.host.blobs.names()] == [half.object_id]


def test_what_is_staged_for_other_ends_stays(half: Half) -> None:
    half.host.restart()
    names = ["u-abc", f"fetch-{OBJECT}", f"r.host-0.{OBJECT}"]
    for name in names:
        half.host.blobs.append(name, 0, b"x")
    half.age(10 * STAGED_AGE_MAX_S)
    half.look()
    assert sorted(each.name for each in half.host.blobs.all_staged()) == sorted(names)


def test_one_that_cannot_be_deleted_keeps_no_other(half: Half, monkeypatch: pytest.MonkeyPatch) -> None:
    half.host.restart()
    blobs, owner = half.host.blobs, half.world.owner.node_id
    for number in range(3):
        blobs.append(f"{owner}.{OBJECT}.{number}", 0, b"x")
    half.age(10 * STAGED_AGE_MAX_S)
    discard, held = FileBlobs.discard, blobs.all_staged()[0].name

    def refuse(self: FileBlobs, staged: str) -> None:
        if staged == held:
            raise Unavailable("another process has it open", reason="DiskError")
        discard(self, staged)

    with monkeypatch.context() as busy:
        busy.setattr(FileBlobs, "discard", refuse)
        half.look()
    assert [each.name for each in blobs.all_staged()] == [held]
    half.look()
    assert half.staged == 0


def test_what_is_opened_while_it_waits_for_its_turn_stays(tmp_path: Path) -> None:
    blobs, waiting, opened = FileBlobs(tmp_path), list[Callable[[], None]](), set[str]()

    def carry(work: Callable[[], Any], ended: Callable[[Any], None]) -> None:
        waiting.append(lambda: ended(work()))

    admission: Admission = SimpleNamespace(  # type: ignore[assignment]
        stop_idle=lambda idle_ms: None, find=lambda owner, object_id: object() if object_id in opened else None
    )
    blobs.append(f"owner.{OBJECT}.3", 0, b"x")
    os.utime(tmp_path / STAGED / f"owner.{OBJECT}.3", (0, 0))
    turns = Turns()
    Sweeping(admission, blobs, Bulk(carry), turns).start()
    turns.take()
    waiting.pop(0)()
    assert len(waiting) == 1, "it is found, and has its turn before it"
    opened.add(OBJECT)
    waiting.pop(0)()
    assert len(blobs.all_staged()) == 1
    turns.take()
    waiting.pop(0)()
    assert waiting == []
    opened.clear()
    turns.take()
    while waiting:
        waiting.pop(0)()
    assert blobs.all_staged() == []
