"""One node with the ledger's machine and handlers over real rows, for the tests of its handlers: it may witness alone,
has a member to pay, a clock to turn and no network.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from google.protobuf.message import Message

from offgrid.v1 import ledger_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Call, Execute, Machine
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.records import LedgerGenesis
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.voice import QUIET_MS
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import all_rows, found_mesh, issue_member
from offgrid_node.protocol.mesh.machine import MeshMachine, MeshSettings
from offgrid_node.protocol.mesh.records import ROLES_ALL, MemberRecord
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN, Caller, Kind
from offgrid_node.services.ledger.handlers import LedgerHandlers
from offgrid_node.services.mesh import mesh_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

ROOT, NODE, BARN, GONE = (NodeKey(letter * 32) for letter in (b"r", b"n", b"b", b"g"))


class House:
    """The node `hub`, an admin, with members `barn` and, removed, `gone`; a clock to turn and no network."""

    def __init__(self, *, enabled: bool = True, key: NodeKey = NODE) -> None:
        self.now_ms, self.key = 0, key
        self.store = MemoryStore()
        self.store.commit(Batch(writes=all_rows(home())))
        settings = MeshSettings(ROLES_ALL, ("hub:7000",), ("hub:7001",), "0.1.0")
        salt = home().salt

        def build() -> dict[str, Machine]:
            mesh = MeshMachine(settings, key, verify, check_identity_certificate)
            return {"mesh": mesh, "ledger": LedgerMachine(LedgerSettings(key, salt, enabled))}

        self.runtime = Runtime(build, self.store, self, Random(5), self)
        self.handlers = LedgerHandlers(
            self.runtime, key, lambda: self.directory, verify, Bulk(inline), self, enabled=enabled
        )
        self.asked: list[tuple[str, str, Message]] = []
        self.answers: dict[str, Message | Fault] = {}  # of others, by node
        self.turn()

    @property
    def directory(self) -> Directory:
        return mesh_of(self.runtime).directory

    def now(self) -> Now:
        return Now(self.now_ms, 1_700_000_000_000_000 + self.now_ms * 1_000)

    def request(
        self, node: str, method: str, request: Message, timeout_ms: int, done: Callable[[Message | Fault], None]
    ) -> None:
        """A call of a handler's: answered by this node itself, or as `answers` say."""
        self.asked.append((node, method, request))
        if node != self.key.node_id:
            done(self.answers.get(node) or Unavailable(f"no road to {node}", reason="NoRoad"))
            return
        try:
            done(self.handlers.sign_final(Caller(Kind.MEMBER, node, ROLES_ALL), request))
        except Fault as fault:
            done(fault)

    def call(self, call: Call) -> None:
        pass

    def execute(self, work: Execute) -> None:
        pass

    def turn(self, ms: int = 1) -> None:
        self.now_ms += ms
        self.runtime.wake()
        self.runtime.turn()

    def ask(self, method: str, request: Message, caller: Caller = ADMIN) -> Any:
        """The answer; raises its fault."""
        outcome = getattr(self.handlers, method)(caller, request)
        if isinstance(outcome, Ticket):
            self.turn()
            outcome = outcome.outcome
        if isinstance(outcome, Fault):
            raise outcome
        assert outcome is not None
        return outcome

    def open(self, *witnesses: str, **fields: Any) -> ledger_pb2.GetGenesisResponse:
        """With `hub` as its only witness unless others are named; once it is open the node may speak."""
        request = ledger_pb2.OpenLedgerRequest(
            witnesses=[ledger_pb2.Witness(name=name) for name in witnesses or ("hub",)], **fields
        )
        genesis: ledger_pb2.GetGenesisResponse = self.ask("open_ledger", request).genesis
        digest = LedgerGenesis.decode(genesis.ledger_genesis.body).digest(self.directory.salt)
        for witness in genesis.witnesses:
            if witness.name != "hub":  # it holds nothing that this node does not know
                peer = Caller(Kind.MEMBER, witness.node_id, ROLES_ALL)
                self.ask(
                    "sync_blocks",
                    ledger_pb2.SyncBlocksRequest(summary=bytes(16), key=bytes(16), yours=b"", genesis_digest=digest),
                    peer,
                )
        self.turn(QUIET_MS + 1)
        return genesis

    def pay(self, amount_micro: int = 5, **fields: Any) -> ledger_pb2.Transaction:
        request = ledger_pb2.CreateTransferRequest(**{"dst": "barn", "amount_micro": amount_micro, **fields})
        tx: ledger_pb2.Transaction = self.ask("create_transfer", request).transaction
        return tx

    def tx(self, tx_id: str) -> ledger_pb2.Transaction:
        request = ledger_pb2.GetTransactionRequest(tx_id=tx_id)
        found: ledger_pb2.Transaction = self.ask("get_transaction", request).transaction
        return found

    def balance(self, account: str = "") -> ledger_pb2.Balance:
        request = ledger_pb2.GetBalanceRequest(account=account)
        found: ledger_pb2.Balance = self.ask("get_balance", request).balance
        return found

    def history(self, **fields: Any) -> list[ledger_pb2.Transaction]:
        """All pages of one transaction each."""
        found, token = [], ""
        while True:
            request = ledger_pb2.ListTransactionsRequest(page_size=1, page_token=token, **fields)
            page = self.ask("list_transactions", request)
            found += page.transactions
            token = page.next_page_token
            if not token:
                return found


def home() -> Directory:
    store = MemoryStore()
    rows = found_mesh(
        "home", ROOT, NODE, identity_certificate(NODE), "hub", 5, bytes(16),
        verify=verify, check_certificate=check_identity_certificate,
    )  # fmt: skip
    store.commit(Batch(writes=rows))
    directory = Directory.load(store, verify, check_identity_certificate)
    for key, name in ((BARN, "barn"), (GONE, "gone")):
        record = MemberRecord(key.node_id, name, key.public_key, ROLES_ALL, 1_000, "", 1)
        directory.accept_member(issue_member(directory.genesis, record, identity_certificate(key), ROOT))
    removed = directory.member(GONE.node_id)
    assert removed is not None
    directory.accept_member(issue_member(directory.genesis, removed.tombstone(""), b"", ROOT))
    return directory
