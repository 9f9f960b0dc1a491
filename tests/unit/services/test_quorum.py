"""QuorumService over real runtimes and real keys: names, bounds, and whose signature is whose."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from google.protobuf.message import Message

from offgrid.v1 import common_pb2, quorum_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call, Machine
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound, PeerFault
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import all_rows, found_mesh, issue_member
from offgrid_node.protocol.mesh.machine import MeshMachine, MeshSettings
from offgrid_node.protocol.mesh.records import ROLES_ALL, MemberRecord
from offgrid_node.protocol.quorum.machine import QuorumMachine
from offgrid_node.protocol.quorum.records import NOTHING, Ack, Epoch, Member, sign_ack, sign_epoch
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.protocol.quorum.telling import PAGE_ROWS
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import ADMIN, Caller, Kind
from offgrid_node.services.mesh import mesh_of
from offgrid_node.services.quorum import QuorumHandlers, check_answer
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

ROOT = NodeKey(b"r" * 32)
KEYS = {name: NodeKey(name[:1].encode() * 32) for name in ("attic", "barn", "cellar")}
HUB = NodeKey(b"n" * 32)
STRANGER = NodeKey(b"z" * 32)


def mesh_rows(extra: int = 0) -> dict[tuple[str, bytes], bytes | None]:
    """A mesh of hub, attic, barn and cellar, and so many more."""
    rows = found_mesh(
        "home", ROOT, HUB, identity_certificate(HUB), "hub", 5, bytes(16),
        verify=verify, check_certificate=check_identity_certificate,
    )  # fmt: skip
    store = MemoryStore()
    store.commit(Batch(writes=rows))
    directory = Directory.load(store, verify, check_identity_certificate)
    keys = KEYS | {f"n{n}": NodeKey(n.to_bytes(32, "big")) for n in range(1, extra + 1)}
    for name, key in keys.items():
        record = MemberRecord(key.node_id, name, key.public_key, ROLES_ALL, 1_500, "shed", 1)
        directory.accept_member(issue_member(directory.genesis, record, identity_certificate(key), ROOT))
    return all_rows(directory)


class House:
    """One node of that mesh with its handlers; calls to others lie on a table."""

    def __init__(self, key: NodeKey = HUB, extra: int = 0) -> None:
        self.key, self.store, self.calls = key, MemoryStore(), list[Call]()
        self.store.commit(Batch(writes=mesh_rows(extra)))
        self.salt = Directory.load(self.store, verify, check_identity_certificate).salt
        self.runtime = Runtime(self._build, self.store, self, Random(5), self)  # type: ignore[arg-type]
        self.handlers = QuorumHandlers(self.runtime, key.node_id, lambda: mesh_of(self.runtime).directory, verify)

    def _build(self) -> dict[str, Machine]:
        settings = MeshSettings(ROLES_ALL, ("hub:7000",), ("hub:7001",), "0.1.0")
        return {
            "mesh": MeshMachine(settings, self.key, verify, check_identity_certificate),
            "quorum": QuorumMachine(QuorumSettings(self.key, self.salt)),
        }

    def now(self) -> Now:
        return Now(0, 0)

    def call(self, call: Call) -> None:
        if call.domain == "quorum":
            self.calls.append(call)

    def end(self, outcome: Message | Ticket) -> Message:
        """The response; raises its fault."""
        if isinstance(outcome, Message):
            return outcome
        self.runtime.wake()
        self.runtime.turn()
        if isinstance(outcome.outcome, Fault):
            raise outcome.outcome
        assert outcome.outcome is not None
        return outcome.outcome

    def create(self, quorum_id: str = "test123", required: int = 2_000, *members: str) -> quorum_pb2.Quorum:
        request = quorum_pb2.CreateQuorumRequest(quorum_id=quorum_id, required_milli=required, members=members)
        answer = self.end(self.handlers.create_quorum(ADMIN, request))
        assert isinstance(answer, quorum_pb2.CreateQuorumResponse)
        return answer.quorum

    def get(self, quorum_id: str = "test123", owner: str = "") -> quorum_pb2.Quorum:
        answer = self.handlers.get_quorum(ADMIN, quorum_pb2.GetQuorumRequest(quorum_id=quorum_id, owner=owner))
        assert isinstance(answer, quorum_pb2.GetQuorumResponse)
        return answer.quorum

    def ids(self, **request: object) -> list[str]:
        found: list[str] = []
        token = ""
        while True:
            page = self.handlers.list_quorums(
                ADMIN,
                quorum_pb2.ListQuorumsRequest(page_size=2, page_token=token, **request),  # type: ignore[arg-type]
            )
            assert isinstance(page, quorum_pb2.ListQuorumsResponse)
            found += [quorum.quorum_id for quorum in page.quorums]
            token = page.next_page_token
            if not token:
                return found


def member(key: NodeKey) -> Caller:
    return Caller(Kind.MEMBER, key.node_id, ROLES_ALL)


@pytest.fixture
def house() -> House:
    return House()


def epoch_of(owner: NodeKey, house: House, *members: NodeKey, number: int = 1, quorum_id: str = "q") -> Epoch:
    return Epoch(owner.node_id, quorum_id, number, NOTHING, 0, 1_000, tuple(Member(m.node_id, 1_500) for m in members))


def ack_of(key: NodeKey, epoch: Epoch, salt: bytes) -> common_pb2.Signed:
    return sign_ack(Ack(key.node_id, epoch.owner, epoch.quorum_id, epoch.epoch, NOTHING, 0, NOTHING), key, salt)


class TestForItsOwner:
    def test_members_are_named_by_name_or_id_and_shown_with_both(self, house: House) -> None:
        quorum = house.create("test123", 2_000, "attic", KEYS["barn"].node_id[:8], "hub")
        shown = {(m.name, m.weight_milli, m.failure_domain, m.alive) for m in quorum.members}
        assert shown == {("attic", 1_500, "shed", False), ("barn", 1_500, "shed", False), ("hub", 1_000, "", True)}
        assert house.get() == quorum

    def test_without_names_everybody_counts(self, house: House) -> None:
        assert {m.name for m in house.create().members} == {"hub", *KEYS}

    @pytest.mark.parametrize(
        ("quorum_id", "required", "members", "field"),
        [
            ("", 1, (), "quorum_id"),
            ("a b", 1, (), "quorum_id"),
            ("x" * 129, 1, (), "quorum_id"),
            ("object:o-1", 1, (), "quorum_id"),
            ("q", 0, (), "required_milli"),
            ("q", 5_501, (), "required_milli"),
            ("q", 1, ("attic", "attic"), "members"),
            ("q", 1, ("attic", "a" * 3), "node"),
        ],
    )
    def test_what_is_wrong_is_named(
        self, house: House, quorum_id: str, required: int, members: tuple[str, ...], field: str
    ) -> None:
        with pytest.raises((InvalidRequest, NotFound)) as refused:
            house.create(quorum_id, required, *members)
        if isinstance(refused.value, InvalidRequest):
            assert [violation.field for violation in refused.value.violations] == [field]
        assert house.ids() == []

    def test_a_mesh_that_is_too_large_must_name_members(self) -> None:
        house = House(extra=64)
        with pytest.raises(InvalidRequest, match="68 nodes in the mesh; name at most 64"):
            house.create()
        with pytest.raises(InvalidRequest, match="65 nodes named"):
            house.create("q", 1, *(f"n{n}" for n in range(1, 65)), "hub")
        assert len(house.create("q", 1, *(f"n{n}" for n in range(1, 65))).members) == 64

    def test_an_ack_of_another_node_is_its_signature(self, house: House) -> None:
        house.create("test123", 2_000, "attic", "hub")
        ticket = house.handlers.ack_quorum(ADMIN, quorum_pb2.AckQuorumRequest(quorum_id="test123", node="attic"))
        house.runtime.turn()
        call = house.calls.pop()
        assert call.node == KEYS["attic"].node_id
        attic = House(KEYS["attic"])
        assert isinstance(call.request, quorum_pb2.SignAckRequest)
        answer = attic.end(attic.handlers.sign_ack(member(HUB), call.request))
        check_answer(answer, mesh_of(house.runtime).directory, verify)
        house.runtime.deliver("quorum", Answered(call.tag, call.node, answer, None))
        acked = house.end(ticket)
        assert isinstance(acked, quorum_pb2.AckQuorumResponse)
        assert (acked.quorum.acked_milli, [m.name for m in acked.quorum.members if m.alive]) == (1_500, ["hub"])

    def test_its_own_ack_is_the_default(self, house: House) -> None:
        house.create("test123", 1_000, "hub")
        house.end(house.handlers.ack_quorum(ADMIN, quorum_pb2.AckQuorumRequest(quorum_id="test123")))
        assert house.get().reached

    def test_lists_leap_over_those_of_objects(self, house: House) -> None:
        for quorum_id in ("a", "mission:1", "objects", "z"):
            house.create(quorum_id, 1)
        row = quorum_pb2.QuorumRow(
            epoch=sign_epoch(epoch_of(HUB, house, HUB, quorum_id="object:o-1"), HUB, house.salt)
        ).SerializeToString()
        rows: dict[tuple[str, bytes], bytes | None] = {
            ("quorums", f"{HUB.node_id}/object:o-{n}".encode()): row for n in range(9)
        }
        house.store.commit(Batch(writes=rows))
        assert house.ids() == ["a", "mission:1", "objects", "z"]
        assert len(house.ids(with_objects=True)) == 13

    def test_unknown_ones_are_not_found(self, house: House) -> None:
        with pytest.raises(NotFound):
            house.get("nowhere")
        with pytest.raises(InvalidRequest):
            house.get("no where")


class TestBetweenNodes:
    def refused(self, act: Callable[[], object]) -> str:
        with pytest.raises(Fault) as fault:
            act()
        return fault.value.reason

    def test_only_the_owner_asks_for_acks(self, house: House) -> None:
        attic, barn = KEYS["attic"], KEYS["barn"]
        epoch = epoch_of(attic, house, HUB)
        good = quorum_pb2.SignAckRequest(epoch=sign_epoch(epoch, attic, house.salt))
        assert self.refused(lambda: house.handlers.sign_ack(member(barn), good)) == "BadSignature"
        forged = quorum_pb2.SignAckRequest(epoch=sign_epoch(epoch, barn, house.salt))
        assert self.refused(lambda: house.handlers.sign_ack(member(barn), forged)) == "ForgedEpoch"
        elsewhere = quorum_pb2.SignAckRequest(epoch=sign_epoch(epoch, attic, b"another mesh    "))
        assert self.refused(lambda: house.handlers.sign_ack(member(attic), elsewhere)) == "BadSignature"
        noise = quorum_pb2.SignAckRequest(epoch=common_pb2.Signed(body=b"noise"))
        assert self.refused(lambda: house.handlers.sign_ack(member(attic), noise)) == "MalformedBody"
        assert self.refused(lambda: house.handlers.sign_ack(member(STRANGER), good)) == "BadSignature"
        answer = house.end(house.handlers.sign_ack(member(attic), good))
        assert isinstance(answer, quorum_pb2.SignAckResponse)
        check_answer(answer, mesh_of(house.runtime).directory, verify)

    def row(self, house: House, *ackers: NodeKey, owner: NodeKey = KEYS["attic"]) -> quorum_pb2.QuorumRow:
        epoch = epoch_of(owner, house, HUB, KEYS["barn"], STRANGER)
        acks = [ack_of(key, epoch, house.salt) for key in ackers]
        return quorum_pb2.QuorumRow(epoch=sign_epoch(epoch, owner, house.salt), acks=acks, acked_us=[7] * len(acks))

    def track(self, house: House, *rows: quorum_pb2.QuorumRow, caller: NodeKey = KEYS["attic"]) -> None:
        request = quorum_pb2.TrackQuorumsRequest(quorums=rows)
        house.end(house.handlers.track_quorums(member(caller), request))

    def test_a_broker_shows_what_it_keeps_track_of(self, house: House) -> None:
        self.track(house, self.row(house, KEYS["barn"]))
        quorum = house.get("q")
        assert (quorum.owner, quorum.acked_milli, quorum.reached) == (KEYS["attic"].node_id, 1_500, True)
        assert house.ids() == ["q"]
        assert house.get("q", owner="attic") == quorum

    def test_its_own_comes_first_and_of_several_one_must_be_named(self, house: House) -> None:
        self.track(house, self.row(house))
        self.track(house, self.row(house, owner=KEYS["barn"]), caller=KEYS["barn"])
        with pytest.raises(InvalidRequest, match="2 nodes own a quorum q"):
            house.get("q")
        assert house.get("q", owner="barn").owner == KEYS["barn"].node_id
        house.create("q", 1)
        assert house.get("q").owner == HUB.node_id

    def test_forged_acks_and_epochs_are_refused(self, house: House) -> None:
        forged = self.row(house, KEYS["barn"])
        forged.acks[0].signature = bytes(64)
        assert self.refused(lambda: self.track(house, forged)) == "BadSignature"
        assert self.refused(lambda: self.track(house, self.row(house), caller=KEYS["barn"])) == "BadSignature"
        outsider = self.row(house, KEYS["cellar"])
        assert self.refused(lambda: self.track(house, outsider)) == "WrongAck"
        assert house.ids() == []

    def test_an_ack_of_somebody_unknown_is_left_out(self, house: House) -> None:
        self.track(house, self.row(house, KEYS["barn"], STRANGER))
        assert [ack.node_id for ack in house.get("q").acks] == [KEYS["barn"].node_id]

    def test_pages_are_bounded(self, house: House) -> None:
        with pytest.raises(InvalidRequest, match=f"at most {PAGE_ROWS}"):
            self.track(house, *[self.row(house)] * (PAGE_ROWS + 1))
        many = self.row(house)
        many.acked_us.append(1)
        with pytest.raises(InvalidRequest, match=r"quorums\[0\].acks"):
            self.track(house, many)

    def test_an_answer_that_its_node_has_not_signed_reaches_no_machine(self, house: House) -> None:
        directory = mesh_of(house.runtime).directory
        epoch = epoch_of(HUB, house, KEYS["barn"])
        forged = ack_of(KEYS["barn"], epoch, house.salt)
        forged.signature = KEYS["attic"].sign(b"x" * 32)
        for ack in (forged, ack_of(STRANGER, epoch, house.salt), common_pb2.Signed(body=b"noise")):
            with pytest.raises(PeerFault):
                check_answer(quorum_pb2.SignAckResponse(ack=ack), directory, verify)
