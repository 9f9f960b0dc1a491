"""What a member says to all: of one mesh, whole, and no longer than a frame of any modem."""

from __future__ import annotations

from offgrid_transports.tellings import SAID_BYTES_MAX, TELLING_BYTES_MAX, Telling, read_telling, write_telling

PSK = b"k" * 32
TOLD = Telling(b"tag of 8", 1_790_000_000_000, b"something")


def test_what_is_written_is_read() -> None:
    for said in (b"x", TOLD.said, bytes(SAID_BYTES_MAX)):
        telling = TOLD._replace(said=said)
        assert read_telling(PSK, write_telling(PSK, telling)) == telling
    assert len(write_telling(PSK, TOLD._replace(said=bytes(SAID_BYTES_MAX)))) == TELLING_BYTES_MAX


def test_what_is_not_of_this_mesh_or_not_whole_is_none() -> None:
    frame = write_telling(PSK, TOLD)
    assert read_telling(b"x" * 32, frame) is None
    for place in range(len(frame)):
        assert read_telling(PSK, frame[:place] + bytes([frame[place] ^ 1]) + frame[place + 1 :]) is None
        assert read_telling(PSK, frame[:place]) is None
    assert read_telling(PSK, write_telling(PSK, TOLD._replace(said=b""))) is None
    assert read_telling(PSK, write_telling(PSK, TOLD._replace(said=bytes(SAID_BYTES_MAX + 1)))) is None
