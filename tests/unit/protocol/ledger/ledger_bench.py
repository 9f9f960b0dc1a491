"""One ledger machine on a bench: what others say is made here and handed to it, what it says is read off."""

from __future__ import annotations

from random import Random

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, ledger_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Asked, Call, Delete, Put, Record, Reply, Woke
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.events import PeerUp
from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.audit import sums
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block, seal_block
from offgrid_node.protocol.ledger.commands import CreateTransfer, OpenLedger, PushBlocks, SyncBlocks
from offgrid_node.protocol.ledger.items import Item, Statement, TxItem
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.marking import spelled
from offgrid_node.protocol.ledger.meeting import Question
from offgrid_node.protocol.ledger.records import GENESIS_KIND, TX_KIND, LedgerGenesis, Tx, encode_meta
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.sources import NodeSource, Source
from offgrid_node.protocol.ledger.views import Surveys
from offgrid_node.protocol.ledger.voice import QUIET_MS
from offgrid_node.protocol.signing import digest_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO, Key, holds, name_of

SELF, W1, W2, W3, OWNER, PAYEE = (name_of(number) for number in range(6))
NAMES = (SELF, W1, W2, W3, OWNER, PAYEE)


class Bench:
    """`SELF` witnesses with W1, W2 and W3, all of one weight: three of them are a quorum."""

    def __init__(
        self,
        *,
        witnesses: tuple[str, ...] = (SELF, W1, W2, W3),
        balances: dict[str, int] | None = None,
        enabled: bool = True,
        opened: bool = True,
    ) -> None:
        self.rng, self.now_ms = Random(5), 10_000
        self.store = MemoryStore()
        self.settings = LedgerSettings(Key(SELF), SALT, enabled)
        funds = balances if balances is not None else dict.fromkeys(NAMES, START_MICRO)
        self.genesis = LedgerGenesis(OWNER, tuple((name, 1_000) for name in witnesses), tuple(funds.items()), FEE, 1)
        body = self.genesis.encode()
        self.signed = common_pb2.Signed(body=body, signature=Key(OWNER).sign(digest_of(GENESIS_KIND, SALT, body)))
        self.root = self.genesis.digest(SALT)
        self._heads: dict[str, tuple[int, bytes]] = {}
        self.calls: list[Call] = []
        self.replies: list[Message | Fault] = []
        self.events: list[state_pb2.Event] = []
        self.said: list[Item] = []
        self.restart()
        if opened:
            self.ask(OpenLedger(self.signed, self.genesis))
            self.calm()

    # ---- the machine

    def restart(self) -> None:
        """As after a crash: memory is gone, rows are there."""
        self.machine = LedgerMachine(self.settings)
        self.machine.load(self.store, self.now())

    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000_000 + self.now_ms * 1_000)

    def step(self, *inputs: object, commit: bool = True) -> None:
        self.now_ms += 1
        batch = Batch()
        for effect in self.machine.step(inputs, self.now(), self.rng):
            match effect:
                case Put(table, key, value):
                    batch.writes[table, key] = value
                case Delete(table, key):
                    batch.writes[table, key] = None
                case Record(event):
                    self.events.append(event)
                case Call():
                    self.calls.append(effect)
                case Reply(_, outcome):
                    self.replies.append(outcome)
        if not commit:
            self.restart()
            return
        own = [*batch.writes.items()]
        self.store.commit(batch)
        for (table, _), value in own:
            if table == "ledger_log" and value is not None:
                block = check_block(ledger_pb2.Block.FromString(value), SALT, holds)
                if block.header.author_id == SELF:
                    self.said += spelled(block.items, self.machine._marking.places_in)
        assert sums(self.store).conserved

    def ask(self, command: object, caller: str = "owner") -> Message | Fault:
        self.step(Asked(1, caller, command))
        return self.replies[-1]

    def wait(self, for_ms: int) -> None:
        until = self.now_ms + for_ms
        while (due := self.machine.deadline_ms()) is not None and due <= until:
            self.now_ms = max(self.now_ms, due)
            self.step(Woke())
        self.now_ms = max(self.now_ms, until)

    def calm(self) -> None:
        """Until the quiet after a start is over: the other witnesses have shown that they hold nothing unknown."""
        for witness, _ in self.genesis.witnesses:
            if witness != SELF:
                self.sync(witness)
        self.wait(QUIET_MS)

    def up(self, *peers: str) -> None:
        self.step(*(PeerUp(peer, "", frozenset()) for peer in peers))

    def answer(self, call: Call, outcome: Message | Fault) -> None:
        fault = outcome if isinstance(outcome, Fault) else None
        self.step(Answered(call.tag, call.node, None if fault else outcome, fault))  # type: ignore[arg-type]

    # ---- what others say

    def block(self, author: str, *items: Item, parents: tuple[bytes, ...] = (), epoch: int = 0) -> CheckedBlock:
        """The author's next block."""
        height, prev = self._heads.get(author, (0, self.root))
        block = seal_block(node_id_bytes(author), height + 1, prev, parents, items, 7, Key(author), SALT, epoch=epoch)
        self._heads[author] = height + 1, block.digest
        return block

    def rewind(self, author: str, blocks: int = 1) -> None:
        """The author forgets its newest blocks: the next is a fork."""
        height, digest = self._heads[author]
        for _ in range(blocks):
            held = self.machine._chains.header_of(digest)
            assert held is not None
            height, digest = height - 1, held.header.prev
        self._heads[author] = height, digest

    def rewind_to(self, author: str, height: int, digest: bytes) -> None:
        """As `rewind`, to a block that need not be held."""
        self._heads[author] = height, digest

    def push(self, *blocks: CheckedBlock, sender: str = W1) -> None:
        self.ask(PushBlocks(sender, blocks), sender)

    def says(self, author: str, *items: Item) -> None:
        self.push(self.block(author, *items), sender=author)

    def sync(
        self, sender: str, heads: tuple[tuple[bytes, int, bytes], ...] = (), wanted: tuple[bytes, ...] = ()
    ) -> None:
        """It shows these heads, and which block of this node's is the newest that it has."""
        yours = next((digest for author, _, digest in heads if author == self.settings.account), b"")
        shown = {author: height for author, height, _ in heads}
        question = Question(bytes(16), bytes(16), heads=shown, all_heads=bool(heads))
        epoch = self.machine._epochs.number
        self.ask(SyncBlocks(sender, question, yours, wanted, self.root, epoch=epoch), sender)

    def tx(
        self,
        src: str = OWNER,
        seq: int = 0,
        prev: bytes | None = None,
        *,
        amount: int = 100,
        to: str = PAYEE,
        fee: int = FEE,
    ) -> TxItem:
        return self.taking(NodeSource(node_id_bytes(src)), ((node_id_bytes(to), amount),), seq, prev, fee=fee)

    def taking(
        self,
        source: Source,
        outputs: tuple[tuple[bytes, int], ...],
        seq: int = 0,
        prev: bytes | None = None,
        *,
        fee: int = FEE,
    ) -> TxItem:
        """A transaction from whatever source, as its signer signs it."""
        tx = Tx(source, seq, prev or self.root, fee, outputs)
        digest = digest_of(TX_KIND, SALT, tx.encode())
        return TxItem(tx, tx.encode(), Key(base32(source.signer)).sign(digest), digest)

    def finish(self, item: TxItem, *witnesses: str) -> None:
        """These witnesses vote for it and confirm it."""
        for witness in witnesses or (W1, W2, W3):
            self.says(witness, vote(item), confirm(item))

    # ---- what it says

    def take_said(self) -> list[Item]:
        said, self.said = self.said, []
        return said

    def take_calls(self, method: str = "") -> list[Call]:
        calls, self.calls = self.calls, []
        return [call for call in calls if call.method.endswith(method)]

    def transfer(self, amount: int, to: str = PAYEE, *, fee: int = 0, request_id: str = "") -> Message | Fault:
        meta = encode_meta({"note": "hello"})
        return self.ask(CreateTransfer(((node_id_bytes(to), amount),), fee, meta, request_id))

    @property
    def views(self) -> Surveys:
        return Surveys(self.store)

    def balance(self, name: str) -> int:
        return self.views.account(name).balance_micro


def vote(item: TxItem) -> Statement:
    return Statement(False, item.tx.src, item.tx.seq, 0, item.digest)


def confirm(item: TxItem) -> Statement:
    return Statement(True, item.tx.src, item.tx.seq, 0, item.digest)
