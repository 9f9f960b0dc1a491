"""Whether hosts keep a journal that is newer than a backup: what came after the backup is given up with it, so whoever
restores it is told first, and has to say that they want that.

Members are asked where one's address is given. Where none is, nobody can know; then a backup in which hosts have acked
the journal is not restored without a word either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from offgrid.backup.container import BackupReader, Manifest
from offgrid.v1 import state_pb2
from offgrid_node.journal_search import Mesh
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.state.chain import writes_of
from offgrid_node.protocol.state.tables import SEGMENTS

WORD = "--give-up-newer"


def check_newest(
    reader: BackupReader, key: NodeKey, address: str | None, say: Callable[[str], None], *, gives_up: bool
) -> None:
    """`say` is told what is given up, where the operator wants that. Raises FailedPrecondition (BackupOutdated) where
    something newer is at hosts, (NewerUnknown) where nobody was asked who may have it; and what `Mesh` raises."""
    if address is not None:
        newer = asyncio.run(_newer(key, address, reader.manifest, say))
        if newer and not gives_up:
            text = f"{newer}: bring it back from them, by --via without --backup, or give it up by {WORD}"
            raise FailedPrecondition(text, reason="BackupOutdated")
        if newer:
            say(f"given up: {newer}")
    elif not gives_up and _went_to_hosts(reader):
        raise FailedPrecondition(
            "hosts keep this node's journal, and may have it newer than this backup: have them asked, by --via "
            f"HOST:PORT beside --backup, or give up what came after the backup by {WORD}",
            reason="NewerUnknown",
        )


async def _newer(key: NodeKey, address: str, manifest: Manifest, say: Callable[[str], None]) -> str:
    """What is newer, and who keeps it; "" where nothing is."""
    mesh = Mesh(key, address)
    try:
        await mesh.meet()
        await mesh.look()
    finally:
        await mesh.close()
    if mesh.silent:
        say(f"silent: {', '.join(mesh.silent)}: they may keep what is newer")
    seen = [head for head in mesh.heads.values() if (head.life, head.events) > (manifest.life, manifest.journal_seq)]
    if not seen:
        begun = mesh.noted is not None and mesh.noted.life > manifest.life
        return "the node began anew after this backup, as members tell, and none has what it did then" if begun else ""
    newest = max(seen, key=lambda head: head.order)
    hosts = sorted({mesh.called(node) for head in seen for node in mesh.found[head.object_id].hosts})
    behind = newest.events - manifest.journal_seq
    many = f"{behind} events newer than the backup" if newest.life == manifest.life else "of a later life than that"
    return f"the journal at {', '.join(hosts)} is {many}, up to event {newest.events}"


def _went_to_hosts(reader: BackupReader) -> bool:
    if not reader.manifest.rows.get(SEGMENTS):
        return False
    return any(
        table == SEGMENTS and value is not None and state_pb2.SegmentRow.FromString(value).durable
        for segment in reader.segments()
        for (table, _), value in writes_of(segment)
    )
