"""Recovery keys as people write them down, and the keys of sessions that are wrapped for one."""

from __future__ import annotations

import stat
from pathlib import Path
from random import Random

import pytest

from offgrid.backup import BackupDamaged, BackupUnknown, SecretNeeded
from offgrid.backup.recovery import (
    Recipient,
    Secret,
    make_secret,
    public_from,
    public_of,
    public_text,
    read_secret,
)
from offgrid.backup.wrapped import unwrap_keys, wrap_keys

KEYS = {f"s-{letter * 24}": bytes([number]) * 32 for number, letter in enumerate("abc")}
SECRET = Secret(key=b"s" * 32)


def test_a_secret_comes_back_from_its_file(tmp_path: Path) -> None:
    public_key = make_secret(tmp_path / "recovery")
    assert public_of(read_secret(tmp_path / "recovery").key) == public_key
    assert public_from(public_text(public_key)) == public_key
    assert stat.S_IMODE((tmp_path / "recovery").stat().st_mode) == 0o600
    with pytest.raises(FileExistsError):
        make_secret(tmp_path / "recovery")


def test_a_slip_of_the_pen_is_no_other_key() -> None:
    text = public_text(public_of(SECRET.key))
    assert len(text) == len("ogr-") + 56
    for at in range(len(text)):
        other = text[:at] + ("b" if text[at] == "a" else "a") + text[at + 1 :]
        with pytest.raises(ValueError, match="is no recovery key"):
            public_from(other)
    with pytest.raises(ValueError, match="a letter is wrong, or missing"):
        public_from("ogr-" + "a" * 48)


def test_a_public_key_is_no_secret(tmp_path: Path) -> None:
    (tmp_path / "recovery").write_text(public_text(b"p" * 32))
    with pytest.raises(ValueError, match="is no recovery secret"):
        read_secret(tmp_path / "recovery")


@pytest.mark.parametrize("keys", [KEYS, {}])
def test_wrapped_keys_open_for_their_recovery_key(keys: dict[str, bytes]) -> None:
    wrapped = wrap_keys(keys, public_of(SECRET.key))
    assert unwrap_keys(wrapped, SECRET) == keys
    assert not any(key in wrapped for key in keys.values())
    with pytest.raises(SecretNeeded):
        unwrap_keys(wrapped, Secret(key=b"t" * 32))


def test_wrapped_keys_of_before_there_was_a_digest_open_as_well() -> None:
    former = b"OGKW\x01" + wrap_keys(KEYS, public_of(SECRET.key))[5:-16]
    assert unwrap_keys(former, SECRET) == KEYS
    for at in range(5 + 32, len(former)):
        for damaged in (former[:at] + bytes([former[at] ^ 1]) + former[at + 1 :], former[:at]):
            with pytest.raises(BackupDamaged):
                unwrap_keys(damaged, SECRET)


def test_no_damage_of_wrapped_keys_passes() -> None:
    wrapped, rng = wrap_keys(KEYS, public_of(SECRET.key)), Random(7)
    for at in range(len(wrapped)):
        changed = wrapped[:at] + bytes([wrapped[at] ^ 1 << rng.randrange(8)]) + wrapped[at + 1 :]
        for damaged in (changed, wrapped[:at]):
            with pytest.raises((BackupDamaged, BackupUnknown)):  # and not SecretNeeded, which says that it is another's
                unwrap_keys(damaged, SECRET)


@pytest.mark.parametrize(("passes", "memory_kib"), [(0, 64), (1, 0), (65, 64), (1, 2**31)])
def test_no_file_asks_for_more_than_a_machine_has(passes: int, memory_kib: int) -> None:
    with pytest.raises(BackupDamaged, match="passes over"):
        Recipient.decode(Recipient(b"p" * 32, b"s" * 16, passes, memory_kib).encode())
