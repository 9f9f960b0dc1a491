"""What GET does to a mesh: nothing (RFC 9110, 9.2.1). All that is bound to it is asked of nodes in virtual time that
have one of everything; afterwards each of their stores is as it was, row by row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress

import msgspec
import pytest
from google.protobuf.message import Message
from road_town import Town

from offgrid.v1 import ledger_pb2, mail_pb2, objects_pb2, quorum_pb2, state_pb2
from offgrid_node.gateway.json_requests import read_request
from offgrid_node.gateway.transcoding import annotated
from offgrid_node.protocol.errors import Fault
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.router import METHODS
from offgrid_node.services.stream import Stream

PACKAGE = "offgrid.v1."
QUIET_S = 60.0
WAIT_S = 0.5  # what a question sets going ends within that, at all nodes


class House:
    """A town with a mission, a task, a job that has ended, an object, a quorum, a session, mail and a ledger."""

    def __init__(self) -> None:
        self.town = Town()
        core, monitor = self.town["core"], self.town.cluster.monitor
        monitor.sessions.keys[core.node_id] = core.session_keys
        monitor.sessions.safe_seq[core.node_id] = lambda: core.running.journal_safe_seq
        monitor.mail.expect(core.node_id, self.town["host-a"].node_id, "hi")
        job = self.town.create()
        self.town.dispatch(job)
        self.made: dict[str, str] = {
            "mission_id": job.mission_id, "task_id": job.task_id, "job_id": job.job_id, "watch": "w",
            "object": "a/b", "quorum_id": "q", "session": "s", "etype": "14",
            "key": job.job_id, "node": self.town["host-a"].node_id, "account": core.node_id,
            "size_bytes": "9", "length": "9",
        }  # fmt: skip
        events = msgspec.msgpack.encode([[1_790_000_000_000_000, "user.note", None, None, b"{}"]])
        body = mail_pb2.TakeMessageRequest(data=b"hi")
        changes: Mapping[str, Message] = {
            "LedgerService/OpenLedger": ledger_pb2.OpenLedgerRequest(),
            "ObjectService/PutObject": objects_pb2.PutObjectRequest(name="a/b", data=b"hello"),
            "QuorumService/CreateQuorum": quorum_pb2.CreateQuorumRequest(quorum_id="q", required_milli=1_000),
            "SessionService/StartSession": state_pb2.StartSessionRequest(name="s"),
            "SessionService/RegisterKind": state_pb2.RegisterKindRequest(kind="user.note", schema=b"{}"),
            "SessionService/RecordEvents": state_pb2.RecordEventsRequest(session="s", writer=bytes(8), events=events),
            "MailService/SendMail": mail_pb2.SendMailRequest(node=self.made["node"], message=body),
            "LedgerService/CreateTransfer": ledger_pb2.CreateTransferRequest(dst=self.made["node"], amount_micro=1),
        }
        for method, request in changes.items():
            outcome = self.town.ask(PACKAGE + method, request)
            assert not isinstance(outcome, Fault), outcome
            if isinstance(outcome, mail_pb2.SendMailResponse):
                self.made["number"] = str(outcome.mail.number)
            if isinstance(outcome, ledger_pb2.CreateTransferResponse):
                self.made["tx_id"] = outcome.transaction.tx_id
        self.town.run_for(QUIET_S)

    def asked_for(self, method: str) -> Message:
        """A request whose fields are those of what is there."""
        kind = METHODS[method].request
        known = {field.name: self.made[field.name] for field in kind.DESCRIPTOR.fields if field.name in self.made}
        return read_request(kind, None, known, [])

    def ask(self, method: str) -> bool:
        """Whether it could be answered, at one of the nodes that are of a kind."""
        answered = False
        for name in ("core", "host-a"):
            node = self.town[name].running
            with suppress(Fault):
                outcome = node.router.dispatch(ADMIN, method, self.asked_for(method))
                self.town.run_for(WAIT_S)
                if isinstance(outcome, Stream):
                    outcome.take()
                    outcome.cancel()
                answered |= not isinstance(getattr(outcome, "outcome", outcome), Fault)
        return answered

    def rows(self) -> Iterator[frozenset[bytes]]:
        for process in self.town.cluster.processes.values():
            yield frozenset(process.store.dump())


@pytest.fixture(scope="module")
def house() -> House:
    return House()


GETS = sorted(method.name for verb, _, method, _, _ in annotated() if verb == "GET")


NOT_HERE = {
    "BackupService/ListBackups": "a simulated store is no file",
    "HostService/WatchDrain": "no host is drained",
    "LedgerService/GetCheckpoint": "no epoch has ended",
    "LedgerService/ListEpochAccounts": "no epoch has ended",
}


def test_nothing_that_is_fetched_leaves_a_trace(house: House) -> None:
    refused = []
    for method in GETS:
        before = list(house.rows())
        refused += [] if house.ask(method) else [method.removeprefix(PACKAGE)]
        assert list(house.rows()) == before, method
    assert refused == sorted(NOT_HERE)


def test_what_changes_something_is_seen_to(house: House) -> None:
    before = list(house.rows())
    house.town.create()
    assert list(house.rows()) != before
