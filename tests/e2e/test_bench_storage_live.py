"""What `bench storage` stands on: a mesh that keeps objects, loses hosts and gets them back, rests, has one frozen."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest
from live import eventually

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.manifest import Code
from offgrid_tools.bench.storage_ours import OWNER, OurStorage

pytestmark = pytest.mark.e2e


@pytest.mark.soak
def test_objects_go_up_and_come_down_with_hosts_lost_and_frozen(tmp_path: Path) -> None:
    data = os.urandom(3_000_000)
    with OurStorage(tmp_path / "mesh", 3, Code(1, 3)) as ours:
        assert ours.pids.keys() == {OWNER, "host0", "host1", "host2"}
        made = ours.put(data)
        assert made.state == objects_pb2.OBJECT_STATE_DURABLE
        spread = ours.wait_spread(made.object_id)
        assert (spread.local, len(spread.acks)) == (False, 3)
        with ours.lost(made.object_id) as lost:
            assert (lost, len(ours.alive)) == (2, 2)
            assert ours.get(made.object_id) == data
        assert len(ours.alive) == 4
        with ours.at_rest():
            for pid in ours.pids.values():
                eventually(lambda pid=pid: psutil.Process(pid).status() == psutil.STATUS_STOPPED, "a node at rest")
        assert ours.get(made.object_id) == data
        if sys.platform != "win32":
            with ours.frozen():
                assert ours.put(b"small").state == objects_pb2.OBJECT_STATE_DURABLE
