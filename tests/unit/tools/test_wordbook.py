"""What was recorded comes back, makes a dictionary, and is measured."""

from __future__ import annotations

import io
from pathlib import Path
from random import Random

import pytest

from offgrid_tools import wordbook
from offgrid_tools.wordbook.measuring import measured
from offgrid_tools.wordbook.samples import REQUEST, RESPONSE, Sample, read_samples, write_sample
from offgrid_transports.packing import NEWEST, Packing

PING = "offgrid.v1.MeshService/Ping"


def said(count: int, rng: Random) -> list[Sample]:
    return [Sample(PING, REQUEST, b"alive and well, host-%d, " % number + rng.randbytes(8)) for number in range(count)]


def test_samples_are_read_as_they_were_written_but_for_one_that_was_cut_off(tmp_path: Path) -> None:
    samples, out = [Sample(PING, REQUEST, b"\x00\n\xff"), Sample(PING, RESPONSE, b"")], io.BytesIO()
    for sample in samples:
        write_sample(out, sample)
    (tmp_path / "node").mkdir()
    (tmp_path / "node" / "1.samples").write_bytes(out.getvalue() + b'["cut')
    assert list(read_samples(tmp_path)) == samples


def test_a_table_tells_the_bytes_and_the_air_of_each_message() -> None:
    head, _, row = measured([Sample(PING, REQUEST, b"x")]).splitlines()
    assert head == "| message | how many | bytes | ids folded | dictionary | ms of air | packed |"
    assert row == "| Ping request | 1 | 1 | 1 | 1 | 68 | 68 |"


def test_a_dictionary_is_the_same_of_the_same_samples() -> None:
    pytest.importorskip("zstandard")
    from offgrid_tools.wordbook.training import train

    made = train(said(300, Random(1)), 1024)
    assert made == train(said(300, Random(1)), 1024)
    assert b"alive and well, host-" in made


def test_what_a_mesh_said_that_the_dictionary_has_never_seen_becomes_a_quarter_shorter() -> None:
    pytest.importorskip("zstandard")
    bodies = [sample.body for sample in read_samples(Path(wordbook.__file__).parent)]
    packing = Packing()
    assert sum(len(packing.pack(body, NEWEST) or body) for body in bodies) < 0.76 * sum(map(len, bodies))
