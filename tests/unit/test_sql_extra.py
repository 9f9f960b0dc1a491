"""The journal's copy in MariaDB where its driver is not installed."""

from __future__ import annotations

import sys

import pytest

from offgrid_node.config.sql_target import parse_target
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.sql_mirror import _connect


def test_an_extra_that_lacks_is_said_with_its_key_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(InvalidRequest) as caught:
        _connect(parse_target("mysql://offgrid:secret@127.0.0.1/journal"))
    assert caught.value.message == (
        "state.sql_mirror: the extra `sql` is not installed: pip install 'offgrid-node[sql]'"
    )
