"""A QR code for terminals and for files: each way of drawing has the same modules."""

from __future__ import annotations

from pathlib import Path

import pytest
import segno

from offgrid import qr_code
from offgrid_node.protocol.mesh.token import InviteToken

TOKEN = str(InviteToken(bytes(8), bytes(range(16)), ("10.77.0.1:7441", "192.168.178.21:7441", "[fd00::1]:7441")))
READ = {drawn: pair for pair, drawn in qr_code.HALVES.items()}


def test_lines_hold_every_module_two_rows_in_each() -> None:
    rows = [row for line in qr_code.lines(TOKEN) for row in zip(*(READ[char] for char in line), strict=True)]
    matrix = segno.make_qr(TOKEN, error="l", boost_error=False).matrix_iter(border=qr_code.QUIET)
    expected = [tuple(bool(module) for module in row) for row in matrix]
    assert rows[: len(expected)] == expected
    assert all(all(row) for row in rows[len(expected) :])


def test_an_invite_with_three_addresses_fits_a_terminal_of_80_by_24() -> None:
    lines = qr_code.lines(TOKEN)
    assert max(map(len, lines)) <= 80
    assert len(lines) <= 24


def test_as_svg_it_has_no_size_of_its_own_and_asks_for_nothing() -> None:
    document = qr_code.svg(TOKEN).decode()
    assert document.startswith("<svg ")
    assert "viewBox" in document
    assert "width=" not in document
    assert document.count("http") == 1  # the name space
    assert TOKEN not in document


@pytest.mark.parametrize(("name", "begins"), [("a.svg", b"<svg"), ("a.PNG", b"\x89PNG")])
def test_files_by_their_suffix(name: str, begins: bytes) -> None:
    assert qr_code.picture(TOKEN, Path(name)).startswith(begins)


def test_any_other_suffix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"a\.gif: a QR code is written as \.svg or \.png"):
        qr_code.picture(TOKEN, Path("a.gif"))
