"""Verifies a node's ledger from its genesis, or from the checkpoint behind which its blocks are forgotten, for `offgrid
ledger verify`: in a process of its own, over the node's
client, or over the folder of a node that does not run. What is worked out lies in a store of its own meanwhile, so
memory does not grow with the ledger.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple, Protocol

import msgspec

from offgrid.client import Client, OffgridError
from offgrid.v1 import common_pb2, ledger_pb2, mesh_pb2
from offgrid_node.folder import Folder, open_store
from offgrid_node.keys import check_identity_certificate, verify
from offgrid_node.protocol.errors import FailedPrecondition, Fault, PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account, Totals
from offgrid_node.protocol.ledger.indexes import read_row, wrong_rows
from offgrid_node.protocol.ledger.items import Claim
from offgrid_node.protocol.ledger.pruned_start import Start, start_of
from offgrid_node.protocol.ledger.pruning import oldest_epoch
from offgrid_node.protocol.ledger.tables import (
    ACCOUNTS,
    AHEAD_KEY,
    CHECKPOINTS,
    EPOCH_KEY,
    GENESIS_KEY,
    IN_FLIGHT,
    LOG,
    META,
    NUMBER_BYTES,
    TOTALS_KEY,
    TXS,
    number_key,
    number_of,
)
from offgrid_node.protocol.ledger.verification import Finding, Verification
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.keychange import Chain, check_chain, key_at
from offgrid_node.protocol.mesh.records import open_genesis
from offgrid_node.protocol.mesh.root import open_root
from offgrid_node.protocol.mesh.vouching import vouched
from offgrid_node.storage.lmdb import LmdbStore
from offgrid_node.storage.store import Batch, Store

COMMIT_BLOCKS = 256
SCRATCH_BYTES_MAX = 1 << 40
FAULTS = (Fault,)  # why a ledger cannot be read
ROUNDS_MAX = 20  # in which new blocks are awaited to stop coming while the rows are read


class Report(msgspec.Struct, frozen=True):
    mesh: str
    mesh_id: str
    blocks: int
    signatures: int
    final: int
    epochs: int  # that have ended
    found: int
    findings: Sequence[Finding]
    below_zero: int  # accounts whose credits are still on their way
    took_s: float
    moved: bool  # blocks kept coming: rows and blocks could not be had of one instant, and were not compared
    first: int = 0  # the epoch from which on it was worked out anew: blocks behind it are forgotten
    unsealed: Sequence[int] = ()  # epochs before that, of whose checkpoints too few seals are kept


class Told(NamedTuple):
    """What the node itself makes of its blocks: as `Verification` compares it."""

    fees_micro: int
    supply_micro: int
    accounts: Iterable[tuple[bytes, int, int, bytes]]
    states: Iterable[tuple[bytes, int, bytes, int]] | None = None  # None: not told
    in_flight: Collection[bytes] = ()
    epochs: Iterable[tuple[int, bytes]] = ()


class Source(Protocol):
    """What is verified."""

    mesh: str
    mesh_id: str
    salt: bytes

    def genesis(self) -> common_pb2.Signed: ...

    def holds(self, claim: Claim) -> bool: ...

    def oldest(self) -> int:
        """The first epoch whose blocks are all there."""
        ...

    def start(self) -> Start | None:
        """What it is verified from where that is not the genesis."""
        ...

    def blocks(self, after: int) -> Iterator[tuple[int, ledger_pb2.Block]]:
        """Behind that position, in their order."""
        ...

    def told(self) -> Told: ...

    def wrong_rows(self) -> Iterable[tuple[str, str]]:
        """Where rows do not lead to blocks, and what is wrong there."""
        ...


def verify_ledger(source: Source) -> Report:
    """Raises Fault and OffgridError for what cannot be read."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="offgrid-verify-") as folder:
        scratch = LmdbStore.open(Path(folder) / "store", limit_bytes=SCRATCH_BYTES_MAX)
        try:
            checked = Verification(scratch, source.genesis(), source.salt, source.holds, Random(0))  # noqa: S311 - nothing is secret here
            oldest, moved = source.oldest(), False
            start = source.start() if oldest else None
            if start is not None:
                scratch.commit(Batch(writes=checked.take_writes()))
                for writes in checked.begin_at(start):
                    scratch.commit(Batch(writes=writes))
            if start is None or checked.first:
                moved = _replay(checked, scratch, source)
            for where, what in source.wrong_rows():
                checked.find(where, what)
            if source.oldest() != oldest:
                raise FailedPrecondition("blocks were forgotten while they were read: verify it again", reason="Pruned")
        finally:
            scratch.close()
    took_s = time.monotonic() - began
    return Report(
        source.mesh, source.mesh_id, checked.blocks, checked.signatures, checked.final, checked.epochs, checked.found,
        checked.findings, checked.below_zero, took_s, moved, oldest, checked.unsealed,
    )  # fmt: skip


def _replay(checked: Verification, scratch: LmdbStore, source: Source) -> bool:
    """All blocks, and what the node makes of them. Whether they never stopped coming."""
    last, moved = _take_all(checked, scratch, source, 0), True
    for _ in range(ROUNDS_MAX):
        told = source.told()
        before, last = last, _take_all(checked, scratch, source, last)
        if last == before:
            moved = False
            checked.compare_totals(told.fees_micro, told.supply_micro)
            checked.compare_accounts(told.accounts)
            checked.compare_epochs(told.epochs)
            if told.states is not None:
                checked.compare_states(told.states, told.in_flight)
            break
    checked.end()
    return moved


def _take_all(checked: Verification, scratch: LmdbStore, source: Source, last: int) -> int:
    """The position of the newest block."""
    for position, block in source.blocks(last):
        checked.take(block, position)
        last = position
        if checked.blocks % COMMIT_BLOCKS == 0:
            scratch.commit(Batch(writes=checked.take_writes()))
    scratch.commit(Batch(writes=checked.take_writes()))
    return last


def offline(folder: Path) -> Report:
    """Of a node that does not run, or of a copy of its folder."""
    store = open_store(Folder(folder).config(), create=False)
    try:
        return verify_ledger(_Rows(store))
    finally:
        store.close()


def online(client: Client) -> Report:
    """Of a node that runs: its blocks, and what it makes of them."""
    return verify_ledger(_Node(client))


class _Rows:
    """A store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._directory = Directory.load(store, verify, check_identity_certificate)
        self.mesh, self.mesh_id, self.salt = self._directory.mesh_name, self._directory.mesh_id, self._directory.salt

    def genesis(self) -> common_pb2.Signed:
        value = self._store.get(META, GENESIS_KEY)
        return _opened(read_row(META, GENESIS_KEY, value, common_pb2.Signed.FromString) if value is not None else None)

    def holds(self, claim: Claim) -> bool:
        key = self._directory.key_at(claim.signer, height=claim.height, seq=claim.seq, number=claim.key)
        return key is not None and verify(key, claim.digest, claim.signature)

    def oldest(self) -> int:
        return oldest_epoch(self._store)

    def start(self) -> Start | None:
        return start_of(self._store)

    def blocks(self, after: int) -> Iterator[tuple[int, ledger_pb2.Block]]:
        for key, value in self._store.scan(LOG, number_key(after + 1)):
            yield number_of(key), read_row(LOG, key, value, ledger_pb2.Block.FromString)

    def told(self) -> Told:
        """Read as it is compared: nobody writes meanwhile."""
        totals = read_row(META, TOTALS_KEY, self._store.get(META, TOTALS_KEY) or b"", Totals.decode)
        ahead = self._store.get(META, AHEAD_KEY)
        if ahead is not None:
            read_row(META, AHEAD_KEY, ahead, _position)
        read_row(META, EPOCH_KEY, self._store.get(META, EPOCH_KEY) or b"", ledger_pb2.EpochRow.FromString)
        in_flight = {digest for _, digest in self._store.scan(IN_FLIGHT)}
        return Told(totals.fees_micro, totals.supply_micro, self._accounts(), self._states(), in_flight, self._epochs())

    def wrong_rows(self) -> Iterable[tuple[str, str]]:
        return wrong_rows(self._store, self.salt)

    def _epochs(self) -> Iterator[tuple[int, bytes]]:
        for key, value in self._store.scan(CHECKPOINTS):
            yield number_of(key), read_row(CHECKPOINTS, key, value, ledger_pb2.CheckpointRow.FromString).body

    def _accounts(self) -> Iterator[tuple[bytes, int, int, bytes]]:
        for key, value in self._store.scan(ACCOUNTS):
            account = read_row(ACCOUNTS, key, value, Account.decode)
            yield key, account.balance_micro, account.next_seq, account.head

    def _states(self) -> Iterator[tuple[bytes, int, bytes, int]]:
        for key, value in self._store.scan(TXS):
            row = read_row(TXS, key, value, ledger_pb2.TxRow.FromString)
            yield key, row.state, row.signed.body, row.epoch


class _Node:
    """A node over its client. Keys are those that the mesh's root vouches for."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._genesis = client.ledger.genesis()
        self._proofs: dict[str, mesh_pb2.GetMemberProofResponse] = {}
        self._keys: dict[str, tuple[bytes, Chain] | None] = {}
        own = self._proof(self._genesis.issuer or client.mesh.status().node_id)
        mesh = open_genesis(own.genesis, verify)
        self._root = open_root(mesh, own.root.changes, verify)
        self.mesh, self.mesh_id, self.salt = mesh.mesh_name, mesh.mesh_id, mesh.salt

    def genesis(self) -> common_pb2.Signed:
        return _opened(self._genesis.ledger_genesis if self._genesis.open else None)

    def holds(self, claim: Claim) -> bool:
        if claim.signer not in self._keys:
            self._keys[claim.signer] = self._vouched(claim.signer)
        keys = self._keys[claim.signer]
        if keys is None or (claim.key is not None and claim.key > len(keys[1])):
            return False
        key = key_at(*keys, height=claim.height, seq=claim.seq, number=claim.key)
        return verify(key, claim.digest, claim.signature)

    def oldest(self) -> int:
        return self._client.ledger.status().oldest_epoch

    def start(self) -> Start | None:
        epoch = self.oldest() - 1
        if epoch < 0:
            return None
        told = [self._client.ledger.checkpoint(each) for each in range(epoch + 1)]
        checkpoints = {each: ledger_pb2.CheckpointRow(body=one.body, heads=one.heads) for each, one in enumerate(told)}

        def seals(number: int) -> Iterator[tuple[bytes, bytes, bytes]]:
            return ((seal.witness, seal.digest, seal.signature) for seal in told[number].seals)

        return Start(epoch, checkpoints, seals, lambda: self._client.ledger.epoch_accounts(epoch + 1))

    def blocks(self, after: int) -> Iterator[tuple[int, ledger_pb2.Block]]:
        return self._client.ledger.blocks(after + 1)

    def told(self) -> Told:
        """Accounts alone: what is final follows from their slots, and a list of all would be as long as the blocks."""
        found = self._client.ledger.balances()
        accounts = [(node_id_bytes(each.account), each.final_micro, each.next_seq, b"") for each in found.balances]
        epochs = ((each.epoch, each.body) for each in self._client.ledger.epochs())
        return Told(found.fees_micro, found.supply_micro, accounts, epochs=epochs)

    def wrong_rows(self) -> Iterable[tuple[str, str]]:
        return ()

    def _proof(self, node: str) -> mesh_pb2.GetMemberProofResponse:
        return self._client.mesh.proof(node)

    def _vouched(self, node: str) -> tuple[bytes, Chain] | None:
        """The first key and what followed it; None for a stranger."""
        try:
            proof = self._proof(node)
            record = vouched(self._root, proof.records, node, verify).record
            chain = check_chain(self._root, node, record.public_key, proof.records[0].key_changes, verify, None)
        except (OffgridError, PeerFault):
            return None
        return record.public_key, chain


def _position(row: bytes) -> int:
    if len(row) != NUMBER_BYTES:
        raise ValueError(f"{len(row)} bytes, {NUMBER_BYTES} needed")
    return number_of(row)


def _opened(genesis: common_pb2.Signed | None) -> common_pb2.Signed:
    if genesis is None:
        raise FailedPrecondition("the mesh's ledger is not open", reason="LedgerNotOpen")
    return genesis
