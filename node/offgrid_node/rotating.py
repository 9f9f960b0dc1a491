"""`offgrid-node rotate identity`: gives this node another identity key, while it stands still.

The change is signed by the key of before, or by the mesh's root key where that one is lost or in wrong hands; what a
thief put in between is then left out as far as it shows. It goes into the store with all that this node has to sign
anew by the next key: its peer record and, if it is an admin, the records that it has issued. Members hear of it from
the node itself once it runs; but those that a thief of its key told first do not talk to it any more. For them the
root's change lies in a file, which one of them takes while it stands still (`rotate take`): the others hear from that.
The mesh's root key is replaced in `rotating_root.py`.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec
from google.protobuf.message import DecodeError
from msgspec.structs import replace

from offgrid.pieces import read_known
from offgrid.v1 import ledger_pb2, mesh_pb2
from offgrid_node.folder import Folder, open_store
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.keys.ring import NEXT, KeyRing
from offgrid_node.protocol.effects import Rows, Signer
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, InvalidRequest, NotFound
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.blocks import header_of
from offgrid_node.protocol.ledger.chains import decode_author
from offgrid_node.protocol.ledger.items import SignedHeader
from offgrid_node.protocol.ledger.tables import (
    ACCOUNTS,
    AUTHORS,
    CHAINS,
    IN_FLIGHT,
    LEARN_KEY,
    LOG,
    META,
    MUTE_KEY,
    chain_key,
)
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.exchange import merge
from offgrid_node.protocol.mesh.founding import MeshRows, held_directory, issue_member
from offgrid_node.protocol.mesh.keychange import CHANGES_MAX, Chain, KeyChange, key_at, last_by_root, sign_change
from offgrid_node.protocol.mesh.records import EPOCH_MAX, PEER_KIND, PEER_VERSION_MAX, signed
from offgrid_node.protocol.state.tables import JOURNAL, NOTING_KEY
from offgrid_node.storage.disk import write_durably
from offgrid_node.storage.store import Batch, Store

CHANGE_FILE = "key_change"  # in a node's folder; it has no secrets


class Lost(msgspec.Struct, frozen=True):
    """A node's key that is in no file any more: only the root can name the next one."""

    node_id: str
    public_key: bytes


class Rotated(msgspec.Struct, frozen=True):
    """What came of it. `number`: how often this node's key was replaced; `change_path`: what another member may be
    given, where the root has signed."""

    key: NodeKey
    number: int
    key_path: Path
    change_path: Path | None


def rotate_identity(path: Path, root: NodeKey | None = None) -> Rotated:
    """Repeated after an interruption it ends what was begun, unless that was durable already: then it rotates anew.

    Raises FailedPrecondition (reason NotTheRoot) for a root key that is not this mesh's, what `open_store` raises when
    the node runs, and what the key files raise.
    """
    folder = Folder(path)
    store = open_store(folder.config(), create=False)
    try:
        directory = directory_in(store)
        if root is not None:
            check_root(directory, root)
        before = _key_of_now(folder, directory, root)
        following = NodeKey.load_or_create(folder.keys_path, NEXT, before.node_id)
        now_us, certificate = time.time_ns() // 1_000, identity_certificate(following)
        rows = changed_rows(store, directory, before, following, certificate, root, now_us)
        store.commit(Batch(writes={**rows, **_speaking_again(store, before.node_id)}))
        number = directory.key_number(before.node_id)
        change_path = _write_change(folder, directory, before.node_id) if root is not None else None
        KeyRing.load(folder.keys_path, following.public_key, number)
    finally:
        store.close()
    return Rotated(following, number, folder.keys_path / "node.key", change_path)


def _speaking_again(rows: Rows, node_id: str) -> Mapping[tuple[str, bytes], bytes | None]:
    """What ends the silence of a node that saw blocks of its own that it had forgotten: it learns what it had signed,
    and speaks by its next key. One that signed twice at a height stays mute: nobody takes in what it says."""
    own = rows.get(AUTHORS, node_id_bytes(node_id))
    if rows.get(META, MUTE_KEY) is None or (own is not None and decode_author(own).frozen):
        return {}
    return {(META, MUTE_KEY): None, (META, LEARN_KEY): b"\1"}


def _write_change(folder: Folder, directory: Directory, node_id: str) -> Path:
    path, told = folder.path / CHANGE_FILE, mesh_pb2.SyncMembersRequest(members=directory.proofs(node_id))
    write_durably(path, told.SerializeToString())
    return path


def take_change(path: Path, change: bytes, *, instead: bool = False) -> list[str]:
    """Tells the node of this folder, which stands still, of a key change of another's, out of that one's CHANGE_FILE,
    or of the root's out of ROOT_CHANGE_FILE; `instead`: in place of another of the root's, which was not the true one.
    Returns the names of those of whom something has changed.

    Raises InvalidRequest for what is no such file, PeerFault for what the mesh's root has not signed,
    FailedPrecondition (reason RootForked) without `instead`, and what `open_store` raises.
    """
    try:
        told = read_known(mesh_pb2.SyncMembersRequest, change)
    except DecodeError as error:
        raise InvalidRequest.field("file", "not a key change") from error
    store = open_store(Folder(path).config(), create=False)
    try:
        directory = directory_in(store)
        before = directory.root.bodies
        _take_root(directory, told.root, instead=instead)
        refusal = merge(directory, told)
        if refusal is not None:
            raise refusal
        root = [f"the mesh's root (number {directory.root.number})"] if directory.root.bodies != before else []
        changed = [each.node_id for each in directory.take_changes()]
        rows = rows_of(directory, changed)
        commit_unnoted(store, rows)
    finally:
        store.close()
    found = (directory.member(node_id) for node_id in changed)
    return [*root, *(record.name or record.node_id for record in found if record is not None)]


def _take_root(directory: Directory, told: mesh_pb2.RootChanges, *, instead: bool) -> None:
    """Raises FailedPrecondition (reason RootForked) where another change by the same key stands here already."""
    if instead:
        directory.settle_root(told)
    elif directory.root.forks([message.change.body for message in told.changes]):
        raise FailedPrecondition(
            "this node knows another key that follows the same root key, so that one is in wrong hands. Where FILE has "
            "the true one: offgrid-node rotate take FILE --instead",
            reason="RootForked",
        )


def directory_in(store: Store) -> Directory:
    """Raises FailedPrecondition (reason NoMesh) for a store of none."""
    directory = held_directory(store, verify=verify, check_certificate=check_identity_certificate)
    if directory is None:
        raise FailedPrecondition("this node's store belongs to no mesh", reason="NoMesh")
    return directory


def rows_of(directory: Directory, changed: Iterable[str]) -> MeshRows:
    """The rows of these members, and that of the root's changes where they have changed."""
    rows = {key: value for node_id in changed for key, value in directory.rows(node_id).items()}
    return {**rows, **directory.take_root_row()}


def commit_unnoted(store: Store, rows: MeshRows) -> None:
    """What is written while nobody notes it down is in no segment of the journal: a new base begins."""
    if rows:
        store.commit(Batch(writes={**rows, (JOURNAL, NOTING_KEY): None}))


def check_root(directory: Directory, root: NodeKey) -> None:
    """Raises FailedPrecondition (reason NotTheRoot)."""
    mesh, known = directory.mesh_name, directory.root
    if root.public_key == known.key:
        return
    if root.public_key in known.keys:
        text = f"that root key of mesh {mesh} was replaced; the one in force is number {known.number}"
    else:
        text = f"that is not the root key of mesh {mesh}"
    raise FailedPrecondition(text, reason="NotTheRoot")


def ring_of(folder: Folder, store: Store) -> KeyRing:
    """This node's keys as its store has them; ends a rotation that was interrupted behind its commit."""
    directory = held_directory(store, verify=verify, check_certificate=check_identity_certificate)
    if directory is None:
        return KeyRing(NodeKey.load(folder.keys_path), ())
    key = _any_key(folder)
    if directory.member(key.node_id) is None:
        names = ", ".join(record.name for node in directory.live()[:3] if (record := directory.member(node)))
        raise FailedPrecondition(
            f"the key in {folder.keys_path} is {key.node_id}'s, who is no member of mesh {directory.mesh_name} "
            f"({names}), whose store this is: was it copied from another node? Put this node's own back, from a "
            "copy or by offgrid-node words --enter",
            reason="OtherNodesKey",
        )
    known, number = directory.current_key(key.node_id), directory.key_number(key.node_id)
    return KeyRing.load(folder.keys_path, known, number)


def _any_key(folder: Folder) -> NodeKey:
    """Says at least who the node is: where its key was lost, the next one, by the root's word."""
    try:
        return NodeKey.load(folder.keys_path)
    except NotFound:
        try:
            return NodeKey.load(folder.keys_path, NEXT)
        except NotFound:
            pass
        raise


def _key_of_now(folder: Folder, directory: Directory, root: NodeKey | None) -> NodeKey | Lost:
    """By the root's word the node may have lost it; then the config says who the node is."""
    try:
        key = NodeKey.load(folder.keys_path)
    except NotFound:
        if root is None:
            raise
        node_id = directory.resolve(folder.config().node.name)
        return Lost(node_id, directory.keys(node_id)[0])
    try:
        known, number = directory.current_key(key.node_id), directory.key_number(key.node_id)
        return KeyRing.load(folder.keys_path, known, number).key
    except Corrupt:
        if root is None:
            raise
        return key


def changed_rows(
    rows: Rows,
    directory: Directory,
    before: Signer | Lost,
    following: Signer,
    certificate: bytes,
    root: Signer | None,
    now_us: int,
) -> MeshRows:
    """Every row that a change of this node's key changes; the directory has it then. `certificate`: the next key's."""
    node_id, genesis = before.node_id, directory.genesis
    if directory.member(node_id) is None:
        raise FailedPrecondition(f"{node_id} is no member of mesh {directory.mesh_name}", reason="NotAMember")
    height, seq = _signed_so_far(rows, node_id)
    known = directory.chain(node_id)
    kept = known if root is None else _own_changes(rows, directory, before, height, seq)
    if len(kept) == CHANGES_MAX:
        raise FailedPrecondition(
            f"the key of this node was replaced {CHANGES_MAX} times, and can be no more", reason="NoKeysLeft"
        )
    was = kept[-1].change.public_key if kept else directory.keys(node_id)[-1]
    said = last_by_root(known)
    changed_us = max(now_us, said.changed_us + 1) if said is not None else now_us
    keys = was, following.public_key
    change = KeyChange(node_id, len(kept) + 1, *keys, height + 1, seq, changed_us, by_root=root is not None)
    signer = root if root is not None or isinstance(before, Lost) else before
    assert signer is not None, "without the root's word the key of before signs"
    message = sign_change(genesis, change, signer, following, certificate)
    peer, proofs = directory.peer(node_id), directory.proofs(node_id)
    directory.accept_member(
        mesh_pb2.MemberProof(
            record=proofs[-1].record,
            certificate=proofs[-1].certificate,
            key_changes=[*(held.message for held in kept), message],
        )
    )
    if peer is not None:
        version, key = min(peer.version + 1, PEER_VERSION_MAX), following.wrapping_key(peer.wrap_number).key
        body = replace(peer, version=version, wrap_key=key if peer.wrap_number else b"").body
        directory.accept_peer(signed(PEER_KIND, directory.salt, body, following))
    _issue_anew(directory, following)
    return rows_of(directory, [each.node_id for each in directory.take_changes()])


def _issue_anew(directory: Directory, admin: Signer) -> None:
    """Who was admitted or removed by this node's word is so by its next key's: the one of before convinces nobody any
    more."""
    for node_id in directory.all_ids():
        record = directory.member(node_id)
        if record is not None and record.issuer == admin.node_id:
            certificate = b"" if record.removed else directory.first_certificate(node_id)
            anew = replace(record, epoch=min(record.epoch + 1, EPOCH_MAX))
            directory.accept_member(issue_member(directory.genesis, anew, certificate, admin))


def _own_changes(rows: Rows, directory: Directory, before: Signer | Lost, height: int, seq: int) -> Chain:
    """Those that the root goes on from. A thief's may begin where this node has not come to, or before what it signed
    by its own key: with them nothing of this node's would be taken in any more. And whoever used up all changes leaves
    those that the key at hand follows."""
    kept = directory.chain(before.node_id)
    newest, first = _newest_block(rows, directory, before.node_id, height), directory.keys(before.node_id)[-1]
    while kept and (
        kept[-1].change.height > height + 1
        or kept[-1].change.seq > seq
        or (newest is not None and not verify(key_at(first, kept, height=height), newest.digest, newest.signature))
    ):
        kept = kept[:-1]
    if len(kept) < CHANGES_MAX:
        return kept
    return tuple(itertools.takewhile(lambda held: held.change.before != before.public_key, kept))


def _newest_block(rows: Rows, directory: Directory, node_id: str, height: int) -> SignedHeader | None:
    place = rows.get(CHAINS, chain_key(node_id_bytes(node_id), height))
    raw = rows.get(LOG, place) if place is not None else None
    return header_of(ledger_pb2.Block.FromString(raw), directory.salt) if raw is not None else None


def _signed_so_far(rows: Rows, node_id: str) -> tuple[int, int]:
    """The height of this node's newest block, and the number of the first transaction that it has not signed."""
    own = node_id_bytes(node_id)
    author, account = rows.get(AUTHORS, own), rows.get(ACCOUNTS, own)
    height = decode_author(author).height if author is not None else 0
    seq = Account.decode(account).next_seq if account is not None else 0
    return height, seq + (1 if rows.get(IN_FLIGHT, own) else 0)
