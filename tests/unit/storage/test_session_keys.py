"""The keys of sessions: durable before they count, gone for good when dropped, and damage is named."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from offgrid_node.protocol.errors import Corrupt, Unavailable
from offgrid_node.storage import session_keys
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys

ONE, TWO = (f"s-{letter * 24}" for letter in "ab")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / SESSION_KEYS


def test_they_outlive_the_process(path: Path) -> None:
    keys = SessionKeys(path)
    assert keys.get(ONE) is None
    keys.add(ONE, bytes(32))
    keys.add(TWO, b"k" * 32)
    again = SessionKeys(path)
    assert (again.get(ONE), again.get(TWO), [*again]) == (bytes(32), b"k" * 32, [ONE, TWO])


def test_a_dropped_one_is_nowhere_in_the_folder(path: Path) -> None:
    keys = SessionKeys(path)
    keys.add(ONE, b"SHRED-ME" * 4)
    keys.add(TWO, b"k" * 32)
    keys.drop([ONE, "s-unknown"])
    assert not any(b"SHRED-ME" in file.read_bytes() for file in path.parent.iterdir())
    assert (SessionKeys(path).get(ONE), SessionKeys(path).get(TWO)) == (None, b"k" * 32)


def test_what_a_crash_left_half_written_goes_at_the_next_start(path: Path) -> None:
    SessionKeys(path).add(ONE, bytes(32))
    left = path.with_name(path.name + ".new")
    left.write_bytes(b"SHRED-ME")
    assert SessionKeys(path).get(ONE) == bytes(32)
    assert not left.exists()


def test_a_disk_that_refuses_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = SessionKeys(path)
    keys.add(ONE, bytes(32))

    def refuse(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session_keys, "write_durably", refuse)
    for change in (lambda: keys.add(TWO, bytes(32)), lambda: keys.drop([ONE])):
        with pytest.raises(Unavailable, match="No space left"):
            change()
    assert (keys.get(ONE), keys.get(TWO)) == (bytes(32), None)


def test_every_damage_is_named(path: Path) -> None:
    SessionKeys(path).add(ONE, b"k" * 32)
    whole = path.read_bytes()
    flipped = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for damaged in (*flipped, *(whole[:length] for length in range(len(whole))), whole + b"\0", bytes(len(whole))):
        path.write_bytes(damaged)
        with pytest.raises(Corrupt, match=SESSION_KEYS) as caught:
            SessionKeys(path)
        assert caught.value.reason == "SessionKeysDamaged"


def test_a_key_that_comes_while_others_are_dropped_is_kept(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys, dropping, going_on = SessionKeys(path), threading.Event(), threading.Event()
    keys.add(ONE, b"1" * 32)
    write = session_keys.write_durably

    def slow(*args: Any) -> None:
        dropping.set()
        going_on.wait()
        write(*args)

    monkeypatch.setattr(session_keys, "write_durably", slow)
    drop = threading.Thread(target=keys.drop, args=([ONE],))
    add = threading.Thread(target=keys.add, args=(TWO, b"2" * 32))
    drop.start()
    dropping.wait()
    add.start()
    add.join(0.05)
    going_on.set()
    for each in (drop, add):
        each.join()
    assert [*keys] == [*SessionKeys(path)] == [TWO]
