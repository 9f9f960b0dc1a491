"""`offgrid-node restore`: a node that has lost its disk comes back from what other members keep of its journal.

All that is needed is its key, from a file or as recovery words, and the address of one member. Who answers there is
nobody we know yet: it can keep things from us, but it cannot make up a segment, which only this key signs, and the
restored rows name the mesh. The store is put together beside its place and takes it when all is there, and the members
have noted the life that the node begins with it (`protocol/objects/lives.py`). Interrupted anywhere, the same command
begins again, or ends what is done but for its last step.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from offgrid.v1 import state_pb2
from offgrid_node.folder import MIB, STORE_FILE, Folder, open_store
from offgrid_node.journal_search import DAMAGED, Mesh
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Corrupt,
    FailedPrecondition,
    PeerFault,
)
from offgrid_node.protocol.mesh.held import GENESIS_KEY
from offgrid_node.protocol.objects.lives import TOKEN_BYTES, Life
from offgrid_node.protocol.objects.segments import SegmentHead
from offgrid_node.protocol.state.chain import Chain, Replay, damaged_rows, newest_chain, writes_of
from offgrid_node.protocol.state.fence import LIVES_APART, Write, fenced, life_after, without_blobs
from offgrid_node.protocol.state.tables import (
    JOURNAL,
    NEWER_KEY,
    NOTING_KEY,
    PAST,
    SEGMENTS,
    STATE_KEY,
    Newer,
    number_key,
)
from offgrid_node.rotating import directory_in
from offgrid_node.storage.disk import sync_folder
from offgrid_node.storage.logged import LoggedStore
from offgrid_node.storage.store import Batch

if TYPE_CHECKING:
    from offgrid_node.config import Config

ASIDE = ".restoring"  # behind the store's name, until all is there

Say = Callable[[str], None]


class Restored(msgspec.Struct, frozen=True):
    """What came back, or would."""

    node_id: str
    name: str
    mesh: str
    chain: Chain
    hosts: int  # that keep something of it
    silent: tuple[str, ...]  # members who did not answer


def restore(
    path: Path,
    key: NodeKey,
    address: str,
    roles: Sequence[str],
    values: Mapping[str, object],
    *,
    dry_run: bool = False,
    say: Say = lambda sentence: None,
) -> Restored:
    """Puts config, key and store into the folder; with `dry_run` nothing. Raises AlreadyExists where a node lives in
    the folder, and what `Mesh` and `newest_chain` raise."""
    folder = Folder(path)
    folder.check_empty()
    return asyncio.run(_restore(folder, key, address, roles, values, dry_run=dry_run, say=say))


async def _restore(
    folder: Folder,
    key: NodeKey,
    address: str,
    roles: Sequence[str],
    values: Mapping[str, object],
    *,
    dry_run: bool,
    say: Say,
) -> Restored:
    mesh = Mesh(key, address)
    try:
        await mesh.meet()
        await mesh.look()
        key = mesh.key
        chain, mesh_name, name = newest_chain(mesh.heads), mesh.directory.mesh_name, mesh.called(key.node_id)
        if not dry_run:
            config = folder.draft(mesh_name, name, roles, values)
            chain = await _newest_sound(config, folder, mesh, chain, say)
        hosts = {node for head in chain.heads for node in mesh.found[head.object_id].hosts}
    finally:
        await mesh.close()
    return Restored(key.node_id, name, mesh_name, chain, len(hosts), tuple(mesh.silent))


async def _newest_sound(config: Config, folder: Folder, mesh: Mesh, chain: Chain, say: Say) -> Chain:
    """What came back: where nobody has a segment whole, what lies before it gives rows too, and nobody will ever have
    more."""
    while True:
        try:
            await _put_together(config, folder, mesh, chain, say)
        except Corrupt as fault:
            if fault.reason != DAMAGED:
                raise
            say(fault.message)
            chain = newest_chain(mesh.heads, mesh.damaged)
        else:
            return chain


async def _put_together(config: Config, folder: Folder, mesh: Mesh, chain: Chain, say: Say) -> None:
    """Store, key, config, in that order; whichever is there already stays."""
    place, limit_bytes = config.storage.memory_db, config.storage.limit_mb * MIB
    aside = place.with_name(place.name + ASIDE)
    if place.exists():
        _check_newest(place, limit_bytes, mesh)
        say(f"{place} is this node's newest store already")
    else:
        shutil.rmtree(aside, ignore_errors=True)
        aside.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        await _fill(aside, limit_bytes, mesh, chain, say)
    mesh.key.keep(folder.keys_path)
    if not place.exists():
        aside.rename(place)
        sync_folder(place.parent)
    folder.keep()


def _check_newest(place: Path, limit_bytes: int, mesh: Mesh) -> None:
    """Raises AlreadyExists unless the store there is of the very life that members know to be the node's newest: that
    of a restore which was interrupted before its last step."""
    text = (
        f"{place} is there already, a store is never overwritten, and no member that answers tells of it as this "
        "node's newest: try again when more of them are up, or move it away"
    )
    taken = AlreadyExists(text, reason="StoreNotEmpty")
    if not (place / STORE_FILE).is_file():
        raise taken
    store = LoggedStore.open(place, limit_bytes=limit_bytes)
    try:
        state = state_pb2.JournalRow.FromString(store.get(JOURNAL, STATE_KEY) or b"")
    finally:
        store.close()
    if mesh.noted is None or (mesh.noted.life, mesh.noted.token) != (state.life, state.token):
        raise taken


def accept_stale(path: Path) -> Newer:
    """Makes a store go on that is not the newest of its node: what came after it is given up. Returns what showed that
    it is old. Raises FailedPrecondition (reason NotStale) where none has."""
    folder = Folder(path)
    node_id, store = NodeKey.load(folder.keys_path).node_id, open_store(folder.config(), create=False)
    try:
        row = store.get(JOURNAL, NEWER_KEY)
        if row is None:
            text = "nothing says that this node's store is an old one: run it without --accept-stale"
            raise FailedPrecondition(text, reason="NotStale")
        newer = Newer.decode(row)
        begun = life_after(newer.life, secrets.randbelow(LIVES_APART), directory_in(store).key_number(node_id))
        writes = behind(store, Life(node_id, begun, newer.number, secrets.token_bytes(TOKEN_BYTES)))
        store.commit(Batch(writes=dict(writes)))
    finally:
        store.close()
    return newer


def behind(rows: Rows, life: Life) -> Iterator[Write]:
    """What makes the rows of an old store those of this life, which gives up what came after them."""
    state = state_pb2.JournalRow.FromString(rows.get(JOURNAL, STATE_KEY) or b"")
    state.life, state.number, state.token, state.base = life.life, life.number, life.token, 0
    yield from fenced(rows, life.owner, life.life)
    yield (JOURNAL, STATE_KEY), state.SerializeToString()
    yield from (((JOURNAL, key), None) for key in (NEWER_KEY, NOTING_KEY))
    yield from (((PAST, key), None) for key, _ in rows.scan(PAST))


async def _fill(aside: Path, limit_bytes: int, mesh: Mesh, chain: Chain, say: Say) -> None:
    store = LoggedStore.open(aside, limit_bytes=limit_bytes)
    try:
        replay = Replay()
        for at, head in enumerate(chain.heads, 1):
            segment = await mesh.fetch(head)
            store.commit(Batch(replay.add(segment), dict(writes_of(segment)), replay.floor))
            say(f"segment {at} of {len(chain.heads)}")
        for name in damaged_rows(segment):
            say(f"{name} was damaged in the store that is lost: it is as it was before")
        replay.check_end(chain.newest.events)
        genesis = store.get("mesh", GENESIS_KEY)
        if genesis != mesh.directory.signed_genesis.SerializeToString():
            raise PeerFault("the member that answered is of another mesh than this node's", reason="WrongMesh")
        life, newer = await _next_life(mesh, chain, say)
        writes = dict(beginning(store, life, chain.newest, mesh.heads.values()))
        if newer is not None:
            writes[JOURNAL, NEWER_KEY] = newer.encode()
        store.commit(Batch(writes=writes))
    finally:
        store.close()


async def _next_life(mesh: Mesh, chain: Chain, say: Say) -> tuple[Life, Newer | None]:
    """The one that the node begins, which members have noted then. Where its present key has none left, that of its
    newest segment: then the store is an old one, told of the last life, and begins none before the key is another."""
    owner, newest = mesh.key.node_id, chain.newest
    try:
        draw = secrets.randbelow(LIVES_APART) if mesh.silent else 0
        begun = life_after(mesh.newest_life, draw, mesh.key_number)
    except FailedPrecondition as fault:
        say(f"{fault.message}, then offgrid-node run --accept-stale")
        return Life(owner, newest.life, newest.number, b""), Newer(mesh.newest_life, newest.number)
    life = Life(owner, begun, newest.number, secrets.token_bytes(TOKEN_BYTES))
    await mesh.begin(life)
    return life, None


def beginning(rows: Rows, life: Life, newest: SegmentHead, heads: Iterable[SegmentHead]) -> Iterator[Write]:
    """What makes the rows of the newest segment those of this life, which knows of the segments that are there."""
    yield from fenced(rows, life.owner, life.life)
    yield from without_blobs(rows)
    state = state_pb2.JournalRow(
        life=life.life, token=life.token, number=newest.number, object_id=newest.object_id, events=newest.events
    )
    yield (JOURNAL, STATE_KEY), state.SerializeToString()
    for head in sorted(heads, key=lambda head: head.order):  # of two lives' heads of one number the later's stays
        if head.order <= newest.order:
            row = state_pb2.SegmentRow(object_id=head.object_id, base=head.base, events=head.events, durable=True)
            yield (SEGMENTS, number_key(head.number)), row.SerializeToString()
