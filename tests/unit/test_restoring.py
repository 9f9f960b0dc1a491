"""What restore says before it has spoken to anybody."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import InvalidRequest, Unavailable
from offgrid_node.restoring import restore


@pytest.mark.parametrize("address", ["nonsense", "", "10.0.0.1", "10.0.0.1:0", "https://10.0.0.1:7500", "a:b:7500"])
def test_what_is_no_address_is_named(tmp_path: Path, address: str) -> None:
    with pytest.raises(InvalidRequest, match=r"via: .* allowed is host:port"):
        restore(tmp_path / "node", NodeKey(b"k" * 32), address, ["core"], {})
    assert not (tmp_path / "node").exists()


def test_where_nobody_answers_that_is_said(tmp_path: Path) -> None:
    with socket.socket() as taken:  # bound and not listening, so nobody else listens there
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(Unavailable, match=f"no member answers at 127.0.0.1:{port}: "):
            restore(tmp_path / "node", NodeKey(b"k" * 32), f"127.0.0.1:{port}", ["core"], {})
