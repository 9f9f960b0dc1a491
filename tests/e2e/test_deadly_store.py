"""A store so damaged that reading it ends the process: the next start says so, and a backup brings the node back."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from live import GIVE_UP_S, eventually, offgrid_node

from offgrid.backup.recovery import Secret
from offgrid_node.founding import found
from offgrid_node.keys import NodeKey
from offgrid_node.local_mesh import LOCAL, LocalNode
from offgrid_node.restoring_backup import restore_backup


@pytest.mark.skipif(sys.platform != "linux", reason="a read behind a file's end is an error of its own elsewhere")
def test_a_store_that_ends_its_process(tmp_path: Path) -> None:
    node = LocalNode("attic", ("core",), tmp_path / "node", LOCAL)
    found(node.folder, "home", node.name, node.roles, LOCAL)
    node.run("run")
    node.wait_ready()
    with node.client() as client:
        mission = client.missions.create("watch the house")
        kept = client.objects.put(bytes(range(256)) * 40, name="deadly")
        assert [*client.backups.create(tmp_path / "backup")]
    assert node.stop() == 0
    point_behind_the_end(node.folder / "data" / "memory.db" / "data.mdb", kept.object_id.encode())

    node.run("run")
    eventually(lambda: not node.alive, "it dies of its store")
    assert node.process is not None
    assert node.process.returncode in (-signal.SIGBUS, -signal.SIGSEGV), node.log_tail()
    again = offgrid_node("run", "--dir", node.folder, timeout_s=GIVE_UP_S)
    assert again.code == 4, again.said
    assert "the store is damaged" in again.err, again.said
    assert "offgrid-node restore --via" in again.err, again.said

    back = LocalNode("attic", ("core",), tmp_path / "back", LOCAL)
    key = NodeKey.read(node.folder / "keys" / "node.key")
    restore_backup(back.folder, tmp_path / "backup", key, back.roles, LOCAL, secret=Secret())
    back.run("run")
    back.wait_ready()
    with back.client() as client:
        assert [each.mission_id for each in client.missions.list()] == [mission.mission_id]
    assert back.stop() == 0


def point_behind_the_end(file: Path, key: bytes) -> None:
    """Each row whose key begins so and whose value has pages of its own is said to have 48 MB, which end within LMDB's
    map and behind the file. Before a row's key stand the size of its value 4, flags 2, the key's length 2."""
    content, count = bytearray(file.read_bytes()), 0
    at = content.find(key)
    while at >= 0:
        if content[at - 4 : at - 2] == b"\1\0" and len(key) <= content[at - 2] <= 2 * len(key):
            content[at - 8 : at - 4] = (48 << 20).to_bytes(4, "little")
            count += 1
        at = content.find(key, at + 1)
    assert count, "no such row: is the layout another one?"
    file.write_bytes(content)
