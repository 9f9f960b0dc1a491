"""Our road: four witnesses, each a process with its own store and keys, mutual TLS between them, real fsyncs; and an
owner with many lanes, whose blocks this process makes, as its node would, and brings to all four.

The owner's transactions are signed before the clock runs, as a wallet does that knows what it will pay: a slot's
`prev` is known once the one before it is signed. Each lane has one transaction after the other; a transaction counts
once its money is at the payee's by the final funds of every witness, durable at each.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import grpc
import msgspec
from google.protobuf.message import Message

from offgrid.client import Client
from offgrid.v1 import ledger_pb2, ledger_pb2_grpc
from offgrid_node.folder import Folder, open_store
from offgrid_node.keys import NodeKey, check_identity_certificate, issue_leaf, verify
from offgrid_node.keys.ring import KeyRing
from offgrid_node.local_mesh import LocalMesh
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, seal_block
from offgrid_node.protocol.ledger.commands import PUSH_SIGNATURES_MAX
from offgrid_node.protocol.ledger.items import TxItem
from offgrid_node.protocol.ledger.records import OUTPUTS_MAX, TX_KIND, LedgerGenesis, Tx, tx_id_of
from offgrid_node.protocol.ledger.sources import LaneSource, NodeSource, lane_account
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.machine import PROBE_INTERVAL_MS
from offgrid_node.protocol.signing import digest_of
from offgrid_node.services.grpc_road import GrpcRoad

WITNESSES = ("w1", "w2", "w3", "w4")
OWNER = "owner"
CALL_S_MAX = 120.0
CALL_TIMEOUT_MS = 60_000
POLL_S = 0.03
LANES = 1_024
LANE_MICRO = 500_000_000
BLOCK_TXS = PUSH_SIGNATURES_MAX // 2 - 1
IN_FLIGHT = 4_096  # transactions that are pushed and not final everywhere
AMOUNT_MICRO = 5


class Flood(msgspec.Struct, frozen=True):
    """What one sample took; how many blocks of all authors, and how many of them were another's for a witness, all
    witnesses together."""

    count: int
    took_s: float
    blocks: int
    blocks_checked: int


class OurLedger:
    """Use it in a `with` block."""

    def __init__(self, folder: Path) -> None:
        roles = {**{name: ["core"] for name in WITNESSES}, OWNER: ["core"]}
        self._mesh = LocalMesh(folder, "bench", roles, mesh__probe_interval_ms=PROBE_INTERVAL_MS)
        self._clients: list[Client] = []

    def __enter__(self) -> OurLedger:
        try:
            self._mesh.start()
            self._mesh.wait_alive()
            with self._mesh[WITNESSES[0]].client(CALL_S_MAX) as client:
                client.ledger.open(witnesses=dict.fromkeys(WITNESSES, 0))
            self._clients = [self._mesh[name].client(CALL_S_MAX) for name in WITNESSES]
            for client in self._clients:
                _eventually(partial(_is_open, client))
            channels = [grpc.insecure_channel(self._mesh[name].socket) for name in WITNESSES]
            self._stubs = [ledger_pb2_grpc.LedgerServiceStub(channel) for channel in channels]
            self._mesh[OWNER].stop()
            self._owner = Owner(self._mesh[OWNER].folder, self._clients[0].ledger.genesis())
        except BaseException:
            self._mesh.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()
        self._mesh.stop()

    @property
    def pids(self) -> Mapping[str, int]:
        """Of the witnesses; the owner is this process."""
        return {name: node.process.pid for name, node in self._mesh.nodes.items() if node.process and node.alive}

    @property
    def owner(self) -> Owner:
        return self._owner

    def transfer(self) -> float:
        """Seconds from a transfer's call, at one of the witnesses, until it is final there."""
        began = time.perf_counter()
        payer = self._clients[0].ledger
        made = payer.transfer(WITNESSES[1], AMOUNT_MICRO)
        ended = payer.settled(made.tx_id, CALL_S_MAX)
        took = time.perf_counter() - began
        if ended.state != ledger_pb2.TX_STATE_FINAL:
            raise RuntimeError(f"transaction {made.tx_id} did not become final: {ended}")
        return took

    def fund(self) -> None:
        """The lanes get their money."""
        self._bring(self._owner.funding(LANES))

    def flood(self, count: int) -> Flood:
        """`count` transactions, of all lanes in turn."""
        items = self._owner.payments(count)
        before = self._heights()
        began = time.perf_counter()
        self._bring(items)
        took_s = time.perf_counter() - began
        new = {author: height - before.get(author, 0) for author, height in self._heights().items()}
        blocks, own = sum(new.values()), sum(new[self._mesh[name].node_id] for name in WITNESSES)
        return Flood(len(items), took_s, blocks, len(WITNESSES) * blocks - own)

    def _bring(self, items: Sequence[TxItem]) -> None:
        asyncio.run(self._brought(items))

    async def _brought(self, items: Sequence[TxItem]) -> None:
        """To each witness one block after the other, as its gossip does; to all of them at once."""
        road = GrpcRoad(self._owner.tls, lambda: self._owner.directory)
        parts = [items[at : at + BLOCK_TXS] for at in range(0, len(items), BLOCK_TXS)]
        blocks = [ledger_pb2.Block.FromString(self._owner.block(part).raw) for part in parts]
        room = [asyncio.Semaphore(IN_FLIGHT // BLOCK_TXS) for _ in WITNESSES]
        goal = self._fees(0) + sum(item.tx.fee_micro for item in items)

        async def bring(place: int, node: str) -> None:
            for block in blocks:
                await room[place].acquire()
                await _call(road, node, ledger_pb2.PushBlocksRequest(blocks=[block]))

        async def make_room() -> None:
            """Another block may go for each that has become final."""
            for part in parts:
                while not self._is_final(0, part[-1].digest):  # noqa: ASYNC110 - nothing here tells of it
                    await asyncio.sleep(POLL_S)
                for semaphore in room:
                    semaphore.release()

        nodes = [self._mesh[name].node_id for name in WITNESSES]
        async with asyncio.timeout(CALL_S_MAX):
            await asyncio.gather(make_room(), *(bring(place, node) for place, node in enumerate(nodes)))
            for witness in range(len(WITNESSES)):
                while not self._holds(witness, items, goal):  # noqa: ASYNC110 - the same
                    await asyncio.sleep(POLL_S)
        await road.close()

    def _holds(self, witness: int, items: Sequence[TxItem], fees_micro: int) -> bool:
        """Whether all is final there: the last one, which costs little to ask for, and then all that was paid."""
        return self._is_final(witness, items[-1].digest) and self._fees(witness) >= fees_micro

    def _is_final(self, witness: int, digest: bytes) -> bool:
        try:
            asked = ledger_pb2.GetTransactionRequest(tx_id=tx_id_of(digest))
            return self._stubs[witness].GetTransaction(asked).transaction.state == ledger_pb2.TX_STATE_FINAL
        except grpc.RpcError as error:
            if error.code() != grpc.StatusCode.NOT_FOUND:
                raise
            return False

    def _fees(self, witness: int) -> int:
        """What was paid by transactions that are final at that witness."""
        return self._stubs[witness].ListBalances(ledger_pb2.ListBalancesRequest(page_size=1)).fees_micro

    def _heights(self) -> dict[str, int]:
        return {head.author: head.height for head in self._clients[0].ledger.status().heads}


class Owner:
    """The keys, the chain of blocks and the lanes of a member whose node is not up."""

    def __init__(self, folder: Path, genesis: ledger_pb2.GetGenesisResponse) -> None:
        store = open_store(Folder(folder).config(), create=False)
        try:
            self.directory = Directory.load(store, verify, check_identity_certificate)
        finally:
            store.close()
        self._key: NodeKey = KeyRing.load(Folder(folder).keys_path, None, 0).key
        self.tls = issue_leaf(self._key)
        self._salt = self.directory.salt
        self._account = node_id_bytes(self._key.node_id)
        opened = LedgerGenesis.decode(genesis.ledger_genesis.body)
        self._fee, self._root = opened.fee_micro, opened.digest(self._salt)
        self._payee = node_id_bytes(opened.witnesses[0][0])
        self._height, self._head = 0, self._root
        self._next: dict[int, tuple[int, bytes]] = {}  # lane (0: its own account) → next slot, digest before it

    def block(self, items: Sequence[TxItem]) -> CheckedBlock:
        """The next of its chain."""
        self._height += 1
        now_us = time.time_ns() // 1_000
        block = seal_block(self._account, self._height, self._head, (), items, now_us, self._key, self._salt)
        self._head = block.digest
        return block

    def funding(self, lanes: int) -> list[TxItem]:
        """Transactions of its own account that pay into so many lanes."""
        names = [lane_account(self._account, lane) for lane in range(1, lanes + 1)]
        parts = [names[at : at + OUTPUTS_MAX] for at in range(0, lanes, OUTPUTS_MAX)]
        return [self._sign(0, tuple((name, LANE_MICRO) for name in part)) for part in parts]

    def payments(self, count: int) -> list[TxItem]:
        """So many, signed, of all lanes in turn."""
        return [self._sign(1 + number % LANES, ((self._payee, AMOUNT_MICRO),)) for number in range(count)]

    def _sign(self, lane: int, outputs: tuple[tuple[bytes, int], ...]) -> TxItem:
        seq, prev = self._next.get(lane, (0, self._root))
        source = LaneSource(self._account, lane) if lane else NodeSource(self._account)
        tx = Tx(source, seq, prev, self._fee, outputs)
        body = tx.encode()
        digest = digest_of(TX_KIND, self._salt, body)
        self._next[lane] = seq + 1, digest
        return TxItem(tx, body, self._key.sign(digest), digest)


def _is_open(client: Client) -> bool:
    return client.ledger.status().open


async def _call(road: GrpcRoad, node: str, request: ledger_pb2.PushBlocksRequest) -> None:
    """Raises the Fault that it ended with."""
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(outcome: Message | Fault) -> None:
        if isinstance(outcome, Fault):
            ended.set_exception(outcome)
        else:
            ended.set_result(None)

    road.call(node, "offgrid.v1.LedgerService/PushBlocks", request, CALL_TIMEOUT_MS, done)
    await ended


def _eventually(question: Callable[[], bool]) -> None:
    deadline = time.monotonic() + CALL_S_MAX
    while not question():
        if time.monotonic() > deadline:
            raise RuntimeError(f"it did not come about in {CALL_S_MAX:g} s")
        time.sleep(POLL_S)
