"""A member that lies to the ledger, as a witness and as an owner, with its own key only.

As a witness it votes for both sides, confirms what has no certificate, forks its chain, withholds blocks that its
others name, skips heights, votes for slots that are not due, names in one slot what belongs to another and repeats old
blocks; of slots with two transactions it makes up certificates, hides them, and votes for both sides. As an owner it
signs two transactions for one slot and tells half of the mesh of each, spends what it does not have, leaves slots out,
and signs what follows nothing. A careful one never forks its chain, so it is listened to for long; what it names in
its own slot is most often on its way just then. It weighs less than a third, so nothing of it may matter to anybody
else.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.blocks import seal_block
from offgrid_node.protocol.ledger.disputes import NO_CERTIFICATE
from offgrid_node.protocol.ledger.items import Item, Report, Statement, TxItem, decode_item
from offgrid_node.protocol.ledger.records import DIGEST_BYTES, HEADER_KIND, TX_KIND, Header, Tx, noop_digest
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.ledger.tables import ACCOUNTS
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import EPOCH_US, MS
from offgrid_tools.sim.process import Process

PUSH_BLOCKS = "offgrid.v1.LedgerService/PushBlocks"
CALL_TIMEOUT_MS = 2_000
LATE_MAX_US = 800 * MS
LIE_CHANCE = 0.3  # for each push that it overhears
SPEND_FIRST_CHANCE = 0.7
CAREFUL_CHANCE = 0.4
AT_ONCE_CHANCE = 0.5  # that a careful one names a transaction as soon as its owner has let it go
LIES_MAX = 40
HEARD_MAX = 200
NEWEST = 6  # transactions that are likely to be in flight
FEE_MICRO, AMOUNT_MAX_MICRO = 1_000, 2_000_000


class LedgerLiar:
    """Overhears what others push; the honest node of the same name goes on beside it, until it notices."""

    def __init__(self, cluster: Cluster, process: Process) -> None:
        self._cluster, self._engine, self._rng = cluster, cluster.engine, cluster.engine.rng
        self._process, self._author = process, node_id_bytes(process.node_id)
        self._known: dict[bytes, bool] = {}
        self._blocks: list[ledger_pb2.Block] = []
        self._txs: list[TxItem] = []
        self._tips: list[tuple[int, bytes]] = []  # own blocks, true and false, that something may follow
        self._careful = self._rng.random() < CAREFUL_CHANCE
        self._mine: TxItem | None = None  # in whose slot it speaks of others'
        self.lies = 0
        cluster.network.overhear(ledger_pb2.PushBlocksRequest, self.on_push)

    @property
    def _salt(self) -> bytes:
        return self._cluster.salt

    def on_push(self, source: str, target: str, request: ledger_pb2.PushBlocksRequest) -> None:
        known = len(self._txs)
        for block in request.blocks:
            if block.header.body not in self._known:
                self._known[block.header.body] = True
                self._hear(block)
        if not self._txs or self.lies >= LIES_MAX:
            return
        if self._careful and len(self._txs) > known and self._rng.random() < AT_ONCE_CHANCE:
            self.lies += 1
            self._name_others()
        elif self._rng.random() < LIE_CHANCE:
            self._engine.after(self._rng.randint(0, LATE_MAX_US), self._lie)

    def _hear(self, block: ledger_pb2.Block) -> None:
        self._blocks = [*self._blocks[-HEARD_MAX:], block]
        header = Header.decode(block.header.body)
        if header.author == self._author:
            self._tips.append((header.height, digest_of(HEADER_KIND, self._salt, block.header.body)))
        for data in block.items:
            item = decode_item(data, self._salt)
            if isinstance(item, TxItem):
                self._txs.append(item)

    # ---- lies

    def _lie(self) -> None:
        self.lies += 1
        tx = self._rng.choice(self._txs[-NEWEST:])
        other = self._rng.choice(self._txs)
        vote = Statement(False, tx.tx.src, tx.tx.seq, 0, tx.digest)
        careful = (
            lambda: self._tell_all([replace(vote, confirms=True)]),
            lambda: self._tell_all([vote, replace(vote, confirms=True), replace(vote, seq=vote.seq + 1)]),
            self._name_others,
            self._name_others,
            self._overspend,
            self._uproot,
            self._judge,
            self._judge,
        )
        forging = (
            lambda: self._tell_halves([vote], [replace(vote, tx_digest=self._rng.randbytes(32))]),
            lambda: self._tell_all([replace(vote, tx_digest=other.digest), replace(vote, ballot=1)]),
            lambda: self._tell_all([vote], skip=self._rng.randint(1, 3)),
            self._withhold_one,
            self._repeat,
            self._spend_twice,
            self._spend_twice,
        )
        # A forger is soon believed by nobody, so what matters most comes first.
        first = self.lies == 1 and not self._careful and self._rng.random() < SPEND_FIRST_CHANCE
        (self._spend_twice if first else self._rng.choice(careful if self._careful else (*careful, *forging)))()

    def _name_others(self) -> None:
        """Pays as it should, and speaks in that slot, until it is final, of transactions that belong to others."""
        mine = self._mine
        if mine is None or mine.tx.seq < self._next_slot()[0]:
            mine = self._mine = self._spend(1)
        vote = Statement(False, mine.tx.src, mine.tx.seq, 0, mine.digest)
        self._tell_all([mine, vote, *(replace(vote, tx_digest=other.digest) for other in self._txs[-NEWEST:])])

    def _judge(self) -> None:
        """At ballots above 0 of one slot, best of one that its owner has torn."""
        torn = [tx for tx in self._txs if any(_rivals(tx, other) for other in self._txs)]
        tx, ballots = self._rng.choice(torn[-NEWEST:] or self._txs[-NEWEST:]).tx, self._rng.randint(1, 2)
        rivals = [each.digest for each in self._txs if (each.tx.src, each.tx.seq) == (tx.src, tx.seq)]
        ends = [*rivals, noop_digest(self._salt, tx.src, tx.seq)]
        items: list[Item] = []
        for ballot in range(1, ballots + 1):
            certificate = self._rng.choice([NO_CERTIFICATE, *((ballot - 1, end) for end in ends)])
            vote = Statement(False, tx.src, tx.seq, ballot, self._rng.choice(ends))
            items += [Report(tx.src, tx.seq, ballot, *certificate), vote, replace(vote, confirms=True)]
        self._tell_all(items)

    def _uproot(self) -> None:
        """A payment that follows nothing."""
        self._tell_all([self._sign(self._next_slot()[0], self._rng.randbytes(DIGEST_BYTES), 1)])

    def _withhold_one(self) -> None:
        """A block that names one that nobody will ever see."""
        height, prev = self._tip()
        self._push([self._seal([self._some_vote()], height + 1, digest_of(HEADER_KIND, b"", prev))], self._others())

    def _repeat(self) -> None:
        count = self._rng.randint(1, 5)
        self._push([self._rng.choice(self._blocks) for _ in range(count)], self._others())

    def _spend_twice(self) -> None:
        first, second = self._spend(self._rng.randint(1, AMOUNT_MAX_MICRO)), self._spend(1)
        mine = Statement(False, first.tx.src, first.tx.seq, 0, first.digest)
        self._tell_halves([first, mine], [second, replace(mine, tx_digest=second.digest)])

    def _overspend(self) -> None:
        tx = self._spend(2**62)
        vote = Statement(False, tx.tx.src, tx.tx.seq, 0, tx.digest)
        self._tell_all([tx, vote, replace(vote, confirms=True)])

    def _spend(self, amount_micro: int) -> TxItem:
        """The next slot of its own account, or now and then another one."""
        seq, prev = self._next_slot()
        if self._rng.random() < 0.1:
            seq += self._rng.randint(1, 2)
        return self._sign(seq, prev, amount_micro)

    def _sign(self, seq: int, prev: bytes, amount_micro: int) -> TxItem:
        payee = self._rng.choice(self._others())
        tx = Tx(NodeSource(self._author), seq, prev, FEE_MICRO, ((node_id_bytes(payee), amount_micro),))
        body = tx.encode()
        digest = digest_of(TX_KIND, self._salt, body)
        return TxItem(tx, body, self._process.signer.sign(digest), digest)

    # ---- means

    def _some_vote(self) -> Statement:
        tx = self._rng.choice(self._txs)
        return Statement(False, tx.tx.src, tx.tx.seq, 0, tx.digest)

    def _root(self) -> bytes:
        """What the first block and the first transaction follow."""
        genesis = self._cluster.monitor.ledger.genesis
        return genesis.digest(self._salt) if genesis is not None else bytes(32)

    def _next_slot(self) -> tuple[int, bytes]:
        row = self._cluster.monitor.evidence.row(self._process.node_id, ACCOUNTS, self._author)
        account = Account.decode(row) if row is not None else None
        return (account.next_seq, account.head) if account is not None else (0, self._root())

    def _others(self) -> list[str]:
        return [process.node_id for process in self._cluster.processes.values() if process is not self._process]

    def _tip(self) -> tuple[int, bytes]:
        if not self._tips:
            return 0, self._root()
        return max(self._tips) if self._careful else self._rng.choice(self._tips[-4:])

    def _tell_all(self, items: Sequence[Item], *, skip: int = 0) -> None:
        height, prev = self._tip()
        self._push([self._seal(items, height + 1 + skip, prev)], self._others())

    def _tell_halves(self, one: Sequence[Item], other: Sequence[Item]) -> None:
        """Two blocks of one height, each for half of the mesh."""
        height, prev = self._tip()
        others = self._others()
        self._rng.shuffle(others)
        half = self._rng.randint(1, len(others) - 1)
        self._push([self._seal(one, height + 1, prev)], others[:half])
        self._push([self._seal(other, height + 1, prev)], others[half:])

    def _seal(self, items: Sequence[Item], height: int, prev: bytes) -> ledger_pb2.Block:
        signer, now_us = self._process.signer, EPOCH_US + self._engine.now_us
        sealed = seal_block(self._author, height, prev, (), items, now_us, signer, self._salt)
        self._tips.append((height, sealed.digest))
        return ledger_pb2.Block.FromString(sealed.raw)

    def _push(self, blocks: Sequence[ledger_pb2.Block], targets: Sequence[str]) -> None:
        request, network, me = ledger_pb2.PushBlocksRequest(blocks=blocks), self._cluster.network, self._process.node_id
        for target in targets:
            network.call(me, target, PUSH_BLOCKS, request, CALL_TIMEOUT_MS, lambda outcome: None, honest=False)


def _rivals(one: TxItem, other: TxItem) -> bool:
    return (one.tx.src, one.tx.seq) == (other.tx.src, other.tx.seq) and one.digest != other.digest
