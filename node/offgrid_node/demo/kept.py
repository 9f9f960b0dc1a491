"""What `demo --storage` tells: a folder put on hosts, some of them killed, the folder got back, its safety mended."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import BinaryIO

from offgrid.client import Client
from offgrid.v1 import objects_pb2
from offgrid_node.demo.show import Show
from offgrid_node.demo.waiting import until
from offgrid_node.local_mesh import LocalMesh
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.quorum.enough import decimal

KILLED_MAX = 3
FILES_MAX, BYTES_MAX = 100, 2_000_000_000
REPAIR_AFTER_MS = 3_000  # the default, ten minutes, is for machines that come back
MENDED_WITHIN_S = 120.0
PIECE_BYTES = 1 << 20
LARGE_BYTES = 12_000_000  # above storage.coded_from_bytes
COPIES = 4  # of what is small: three hosts may go
SETTINGS = {"storage__copies": COPIES, "storage__repair_after_ms": REPAIR_AFTER_MS}


def nodes_of(hosts: int) -> dict[str, list[str]]:
    """The owner and so many hosts."""
    return {"owner": ["core", "broker"], **{f"host-{number}": ["host"] for number in range(1, hosts + 1)}}


class Kept:
    """Told once, to whoever watches `show`."""

    def __init__(self, mesh: LocalMesh, show: Show) -> None:
        self._mesh, self._show = mesh, show
        self._hosts = [node for node in mesh.nodes.values() if "host" in node.roles]

    def tell(self, folder: Path) -> bool:
        """Whether all went as it should. Raises what the client raises, and InvalidRequest."""
        files = files_of(folder)
        self._start()
        with self._mesh["owner"].client(timeout_s=30) as owner:
            self._put(owner, folder, files)
            made = self._spread(owner)
            killed = self._kill(made)
            whole = self._get(owner, folder, files)
            return self._mended(owner, killed) and whole

    # ---- the chapters

    def _start(self) -> None:
        with self._show.step(f"starting an owner and {len(self._hosts)} hosts, each a process of its own"):
            self._mesh.start()
            self._mesh.wait_alive()

    def _put(self, owner: Client, folder: Path, files: Sequence[str]) -> None:
        self._show.title(f"putting {folder}: every file is sealed here under a key of its own before it leaves")
        for name in files:
            began = time.monotonic()
            made = owner.objects.put(folder / name, name=name)
            made = owner.objects.wait_durable(made.object_id, timeout_s=MENDED_WITHIN_S)
            took_s = time.monotonic() - began
            self._show.line(
                f"    {name}: {made.size_bytes:,} bytes, durable after {took_s:.2f} s: hosts that weigh "
                f"{decimal(made.acked_milli)} must go before it does; {decimal(made.required_milli)} was asked for"
            )

    def _spread(self, owner: Client) -> list[objects_pb2.Object]:
        self._show.title("the owner brings the rest, and then lets its own copies go")
        made = until(partial(_all_spread, owner), "all of it is at its hosts", MENDED_WITHIN_S)
        for each in made:
            kept = (
                f"any {each.shards_needed} of {each.shards_total} shards give it back"
                if each.shards_total
                else f"{len(each.acks)} full copies"
            )
            self._show.line(f"    {each.name}: {kept}; {decimal(each.acked_milli)} must go before it does")
        return made

    def _kill(self, made: Sequence[objects_pb2.Object]) -> set[str]:
        """As many hosts as every object survives, those that hold most of the first; their ids."""
        spare = min((each.acked_milli // 1_000 for each in made), default=1) - 1
        count = max(0, min(KILLED_MAX, spare))
        self._show.title(f"killing {count} of {len(self._hosts)} hosts at once")
        holding = [ack.node_id for each in made for ack in each.acks]
        victims = sorted(self._hosts, key=lambda node: -holding.count(node.node_id))[:count]
        for node in victims:
            assert node.process is not None
            held = [each.name for each in made if any(ack.node_id == node.node_id for ack in each.acks)]
            self._show.line(f"    {node.name} (kill -9 {node.process.pid}) held part of {', '.join(held) or 'nothing'}")
            node.kill()
        return {node.node_id for node in victims}

    def _get(self, owner: Client, folder: Path, files: Sequence[str]) -> bool:
        self._show.title("getting the folder back from those that are left")
        whole = True
        for name in files:
            began = time.monotonic()
            same = digest_of(owner.objects.open(name)) == digest_of((folder / name).open("rb"))
            whole = whole and same
            said = "the same" if same else "NOT THE SAME"
            self._show.line(f"    {name}: {said}, after {time.monotonic() - began:.2f} s")
        return whole

    def _mended(self, owner: Client, killed: set[str]) -> bool:
        """Whether what the dead held lies with others in the end, and may lose as many hosts again."""
        self._show.title(f"the dead stay away for {REPAIR_AFTER_MS / 1_000:g} s: what they held is made anew elsewhere")
        made = until(
            partial(_all_mended, owner, killed, min(COPIES, len(self._hosts) - len(killed))),
            "all of it lies with hosts that live",
            MENDED_WITHIN_S,
        )
        names = {node.node_id: node.name for node in self._hosts}
        for each in made:
            at = ", ".join(names.get(ack.node_id, ack.node_id) for ack in each.acks if ack.node_id not in killed)
            left_milli = _left_milli(each, killed)
            self._show.line(f"    {each.name}: {decimal(left_milli)} must go, from now on; it lies at {at}")
        return True


# ---- what is put


def files_of(folder: Path) -> list[str]:
    """The names of a folder's files, with slashes. Raises InvalidRequest for none, too many or too much."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in paths[: FILES_MAX + 1])
    if not 0 < len(paths) <= FILES_MAX or total > BYTES_MAX:
        text = (
            f"{folder}: {len(paths)} files of {total:,} bytes; the demo takes 1 to {FILES_MAX} of {BYTES_MAX:,} at most"
        )
        raise InvalidRequest(text)
    return [path.relative_to(folder).as_posix() for path in paths]


def made_folder(folder: Path, text: bytes) -> Path:
    """Two files to keep: a text, and bytes enough to be coded."""
    (folder / "photos").mkdir(parents=True)
    (folder / "notes.txt").write_bytes(text)
    (folder / "photos" / "large.bin").write_bytes(os.urandom(LARGE_BYTES))
    return folder


# ---- what recurs


def digest_of(file: BinaryIO) -> bytes:
    """Of all that it holds; closes it."""
    digest = hashlib.sha256()
    with file:
        while piece := file.read(PIECE_BYTES):
            digest.update(piece)
    return digest.digest()


def _all_spread(owner: Client) -> list[objects_pb2.Object] | None:
    """Everything, once the owner has let all of its own copies go."""
    made = list(owner.objects.list())
    return made if not any(each.local for each in made) else None


def _all_mended(owner: Client, killed: set[str], copies: int) -> list[objects_pb2.Object] | None:
    """Everything, once each shard and copy is acked by a host that lives."""
    made = list(owner.objects.list())
    return made if all(_complete(each, killed, copies) for each in made) else None


def _complete(made: objects_pb2.Object, killed: set[str], copies: int) -> bool:
    living = [ack for ack in made.acks if ack.node_id not in killed]
    if made.shards_total:
        return len({shard for ack in living for shard in ack.shards}) == made.shards_total
    return len(living) == copies


def _left_milli(made: objects_pb2.Object, killed: set[str]) -> int:
    """What must go yet: a dead host's copy counts for nothing, though it may come back with it."""
    if made.shards_total:
        return made.acked_milli
    return sum(ack.weight_milli for ack in made.acks if ack.node_id not in killed)
