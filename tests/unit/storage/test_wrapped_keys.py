"""The keys of sessions beside the backups: sealed, complete, and shredded before they are shredded here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from offgrid.backup.recovery import Secret, public_of
from offgrid.backup.wrapped import WRAPPED_KEYS, unwrap_keys, wrap_keys
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.storage import wrapped_keys
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys
from offgrid_node.storage.wrapped_keys import WrappedKeys, drop_wrapped

ONE, TWO = (f"s-{letter * 24}" for letter in "ab")
SECRET = Secret(key=b"s" * 32)


@pytest.fixture
def wrapped(tmp_path: Path) -> Path:
    return tmp_path / "backups" / WRAPPED_KEYS


def at_once(work: Callable[[], None]) -> None:
    work()


def start(wrapped: Path, carry: Callable[[Callable[[], None]], object] = at_once) -> WrappedKeys:
    """As a process does."""
    keys = SessionKeys(wrapped.parent.parent / SESSION_KEYS)
    return WrappedKeys(keys, wrapped, lambda ring: wrap_keys(ring, public_of(SECRET.key)), carry)


def opened(wrapped: Path) -> dict[str, bytes]:
    return unwrap_keys(wrapped.read_bytes(), SECRET)


def refuse(*args: object) -> None:
    raise OSError(5, "Input/output error")


def test_every_key_is_in_the_file_until_it_is_dropped(wrapped: Path) -> None:
    keys = start(wrapped)
    keys.add(ONE, b"1" * 32)
    keys.add(TWO, b"2" * 32)
    assert opened(wrapped) == {ONE: b"1" * 32, TWO: b"2" * 32}
    keys.drop([ONE])
    assert (opened(wrapped), [*keys], keys.get(ONE)) == ({TWO: b"2" * 32}, [TWO], None)


def test_a_key_is_shredded_there_first(wrapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = start(wrapped)
    keys.add(ONE, b"1" * 32)
    with monkeypatch.context() as patch:
        patch.setattr("offgrid_node.storage.session_keys.write_durably", refuse)
        with pytest.raises(Unavailable):
            keys.drop([ONE])
    assert (opened(wrapped), keys.get(ONE)) == ({}, b"1" * 32)


def test_where_it_cannot_be_shredded_there_it_is_not_shredded_here(
    wrapped: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = start(wrapped)
    keys.add(ONE, b"1" * 32)
    monkeypatch.setattr(wrapped_keys, "write_durably", refuse)
    with pytest.raises(Unavailable, match="cannot write"):
        keys.drop([ONE])
    assert keys.get(ONE) == b"1" * 32


def test_a_folder_that_is_away_keeps_no_session_from_beginning(wrapped: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = start(wrapped)
    with monkeypatch.context() as patch:
        patch.setattr(wrapped_keys, "write_durably", refuse)
        keys.add(ONE, b"1" * 32)
    assert "are not wrapped beside the backups" in keys.trouble
    keys.add(TWO, b"2" * 32)
    assert (keys.trouble, {*opened(wrapped)}) == ("", {ONE, TWO})


def test_nobody_waits_for_a_slow_folder_and_what_was_dropped_meanwhile_stays_out(wrapped: Path) -> None:
    waiting: list[Callable[[], None]] = []
    keys = start(wrapped, waiting.append)
    keys.add(ONE, b"1" * 32)
    keys.add(TWO, b"2" * 32)
    assert (len(waiting), wrapped.exists()) == (1, False)
    keys.drop([ONE])
    waiting.pop()()
    assert opened(wrapped) == {TWO: b"2" * 32}
    keys.add(ONE, b"3" * 32)
    waiting.pop()()
    assert {*opened(wrapped)} == {ONE, TWO}


def test_a_start_makes_it_whole_again(wrapped: Path) -> None:
    start(wrapped).add(ONE, b"1" * 32)
    wrapped.write_bytes(wrap_keys({TWO: b"2" * 32}, public_of(b"t" * 32)))
    start(wrapped)
    assert opened(wrapped) == {ONE: b"1" * 32}


def test_without_a_recovery_key_there_is_no_such_file(wrapped: Path) -> None:
    start(wrapped).add(ONE, b"1" * 32)
    left = wrapped.with_name(f"{WRAPPED_KEYS}.new")
    left.write_bytes(b"of a crash")
    drop_wrapped(wrapped)
    drop_wrapped(wrapped)
    assert not wrapped.exists()
    assert not left.exists()
