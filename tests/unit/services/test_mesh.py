"""The mesh's handlers over a real runtime: status, pages of peers, invites through the door, weights, genesis."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

import pytest
from google.protobuf.message import Message

from offgrid.v1 import common_pb2, ledger_pb2, mesh_pb2, quorum_pb2, state_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, open_sealed, seal, verify
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Call, Execute
from offgrid_node.protocol.errors import (
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    PermissionDenied,
)
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.mesh.commands import TellOfAlert
from offgrid_node.protocol.mesh.founding import adopt_grant, found_mesh
from offgrid_node.protocol.mesh.joining import ask_context, grant_context, join_ask
from offgrid_node.protocol.mesh.machine import MeshMachine, MeshSettings
from offgrid_node.protocol.mesh.records import ROLES_ALL, open_genesis
from offgrid_node.protocol.mesh.root import open_root
from offgrid_node.protocol.mesh.token import InviteToken
from offgrid_node.protocol.mesh.vouching import vouched
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN, ANONYMOUS, Caller, Kind
from offgrid_node.services.health.facts import HealthFacts
from offgrid_node.services.jobs.explaining import Ended
from offgrid_node.services.join import FAILURES_MAX, JoinHandlers
from offgrid_node.services.ledger.handlers import LedgerHandlers
from offgrid_node.services.mesh import MeshHandlers, NodeFacts, mesh_of
from offgrid_node.services.quorum import QuorumHandlers
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

ROOT, NODE = NodeKey(b"r" * 32), NodeKey(b"n" * 32)
MEMBER = Caller(Kind.MEMBER, NODE.node_id, ROLES_ALL)


@dataclass
class House:
    """One founded node with its handlers, a clock to turn and no network."""

    now_ms: int = 0

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        rows = found_mesh(
            "home", ROOT, NODE, identity_certificate(NODE), "hub", 5, bytes(16),
            verify=verify, check_certificate=check_identity_certificate,
        )  # fmt: skip
        self.store.commit(Batch(writes=rows))
        settings = MeshSettings(ROLES_ALL, ("hub:7000",), ("hub:7001",), "0.1.0")

        def build() -> dict[str, MeshMachine]:
            return {"mesh": MeshMachine(settings, NODE, verify, check_identity_certificate)}

        self.runtime = Runtime(build, self.store, self, Random(5), self)
        self.turn()
        facts = NodeFacts("0.1.0", 12, "/data", 0.5, "inline", jobs_open=3, notices=("the disk is slow",), coder="zfec")
        self.mesh = MeshHandlers(self.runtime, NODE.node_id, lambda: facts)
        self.door = JoinHandlers(
            self.runtime,
            seal=seal,
            open_sealed=open_sealed,
            verify=verify,
            check_certificate=check_identity_certificate,
        )

    def now(self) -> Now:
        return Now(self.now_ms, self.now_ms * 1_000)

    def call(self, call: Call) -> None:
        pass

    def request(self, node: str, method: str, request: Message, timeout_ms: int, done: Ended) -> None:
        raise AssertionError(f"{node} is asked for {method}")

    def execute(self, work: Execute) -> None:
        pass

    def turn(self) -> None:
        self.runtime.wake()
        self.runtime.turn()

    def end(self, ticket: Ticket) -> Message:
        """The ticket's response; raises its fault."""
        self.turn()
        if isinstance(ticket.outcome, Fault):
            raise ticket.outcome
        assert ticket.outcome is not None
        return ticket.outcome

    def token(self) -> InviteToken:
        made = self.end(self.mesh.create_invite(ADMIN, mesh_pb2.CreateInviteRequest()))
        assert isinstance(made, mesh_pb2.CreateInviteResponse)
        return InviteToken.parse(made.token)

    def join(self, token: InviteToken, key: NodeKey, name: str) -> mesh_pb2.JoinGrant:
        answer = self.end(self.door.join(ANONYMOUS, request_of(token, key, name)))
        assert isinstance(answer, mesh_pb2.JoinResponse)
        return mesh_pb2.JoinGrant.FromString(open_sealed(token.secret, grant_context(token.invite_id), answer.sealed))

    def fill(self, members: int) -> None:
        for number in range(members):
            self.join(self.token(), NodeKey(bytes([number + 1]) * 32), f"n{number}")


def request_of(token: InviteToken, key: NodeKey, name: str) -> mesh_pb2.JoinRequest:
    ask = join_ask(token.mesh_tag, token.invite_id, name, identity_certificate(key), key)
    return sealed_request(token, ask)


def sealed_request(token: InviteToken, ask: mesh_pb2.JoinAsk) -> mesh_pb2.JoinRequest:
    sealed = seal(token.secret, ask_context(token.invite_id), ask.SerializeToString())
    return mesh_pb2.JoinRequest(invite_id=token.invite_id, sealed=sealed)


@pytest.fixture
def house() -> House:
    return House()


# ---- status and peers


def test_status_says_what_the_node_is_and_keeps_paths_from_other_machines(house: House) -> None:
    status = house.mesh.get_status(ADMIN, mesh_pb2.GetStatusRequest())
    assert (status.node_id, status.name, status.mesh) == (NODE.node_id, "hub", "home")
    assert (list(status.roles), status.peers_alive, status.peers_total) == ([1, 2, 3], 1, 1)
    assert status.coder == "zfec"
    assert (status.jobs_open, status.data_dir, list(status.notices)) == (3, "/data", ["the disk is slow"])
    assert status.journal_seq == house.store.journal_seq > 0
    assert not status.removed
    assert house.mesh.get_status(MEMBER, mesh_pb2.GetStatusRequest()).data_dir == ""


def test_status_tells_of_alerts_of_this_node_and_of_others_that_are_beyond(house: House) -> None:
    ok, warn = mesh_pb2.ALERT_STATE_OK, mesh_pb2.ALERT_STATE_WARN
    alerts = [("", ok), ("", warn), ("s-1", ok), ("s-2", warn)]
    facts = HealthFacts(tuple(mesh_pb2.Alert(name="f", about=about, state=state) for about, state in alerts))
    handlers = MeshHandlers(
        house.runtime, NODE.node_id, lambda: NodeFacts("0.1.0", 1, "/data", 1.0, "inline", health=facts)
    )
    status = handlers.get_status(ADMIN, mesh_pb2.GetStatusRequest())
    assert [(alert.about, alert.state) for alert in status.alerts] == [("", ok), ("", warn), ("s-2", warn)]


def test_status_names_what_may_be_lost_to_its_owner_alone(house: House) -> None:
    risks = mesh_pb2.ObjectRisks(gone=1, gone_names=["my will"])
    facts = NodeFacts("0.1.0", 1, "/data", 1.0, "inline", objects=risks)
    handlers = MeshHandlers(house.runtime, NODE.node_id, lambda: facts)
    assert handlers.get_status(ADMIN, mesh_pb2.GetStatusRequest()).objects == risks
    assert not handlers.get_status(MEMBER, mesh_pb2.GetStatusRequest()).HasField("objects")


def test_status_names_the_page_as_other_machines_reach_it(house: House) -> None:
    here, told = "http://127.0.0.1:8001", "http://192.0.2.7:8001"
    facts = NodeFacts("0.1.0", 1, "/data", 1.0, "inline", gateway=here, gateway_told=told)
    handlers = MeshHandlers(house.runtime, NODE.node_id, lambda: facts)
    seen = [handlers.get_status(caller, mesh_pb2.GetStatusRequest()) for caller in (ADMIN, MEMBER)]
    assert [(each.gateway, each.page) for each in seen] == [(here, told), (told, told)]


def test_an_alert_is_an_event_of_the_journal(house: House) -> None:
    alert = mesh_pb2.Alert(name="memory_mb", state=mesh_pb2.ALERT_STATE_WARN, value=5_000)
    house.runtime.ask("mesh", "health", TellOfAlert(alert))
    house.runtime.turn()
    told = [state_pb2.Event.FromString(body) for _, body in house.store.events()][-1]
    assert (told.etype, told.subject, told.alert) == (EventType.HEALTH_CHANGED, NODE.node_id, alert)


def test_peers_come_in_pages_and_each_once(house: House) -> None:
    house.fill(6)
    seen: list[str] = []
    token = ""
    for _ in range(4):
        page = house.mesh.list_peers(ADMIN, mesh_pb2.ListPeersRequest(page_size=2, page_token=token))
        seen += [peer.member.node_id for peer in page.peers]
        token = page.next_page_token
    assert token == ""
    assert seen == sorted(set(seen))
    assert len(seen) == 7
    everyone = house.mesh.list_peers(ADMIN, mesh_pb2.ListPeersRequest())
    assert [peer.member.name for peer in everyone.peers if peer.self] == ["hub"]


@pytest.mark.parametrize(("page_size", "page_token"), [(0, "!"), (0, "w6k"), (-1, "")])
def test_a_bad_page_is_the_callers_fault(house: House, page_size: int, page_token: str) -> None:
    with pytest.raises(InvalidRequest):
        house.mesh.list_peers(ADMIN, mesh_pb2.ListPeersRequest(page_size=page_size, page_token=page_token))


def test_removed_members_are_listed_on_demand(house: House) -> None:
    house.fill(1)
    house.end(house.mesh.remove_member(ADMIN, mesh_pb2.RemoveMemberRequest(node="n0")))
    assert len(house.mesh.list_peers(ADMIN, mesh_pb2.ListPeersRequest()).peers) == 1
    everyone = house.mesh.list_peers(ADMIN, mesh_pb2.ListPeersRequest(include_removed=True)).peers
    assert sorted(peer.member.removed for peer in everyone) == [False, True]


def test_whose_key_is_whose_can_be_shown_far_away(house: House) -> None:
    house.fill(2)
    house.end(house.mesh.remove_member(ADMIN, mesh_pb2.RemoveMemberRequest(node="n1")))
    for name in ("hub", "n0", "n1"):
        proof = house.mesh.get_member_proof(ADMIN, mesh_pb2.GetMemberProofRequest(node=name))
        genesis = open_genesis(proof.genesis, verify)
        root = open_root(genesis, proof.root.changes, verify)
        record = vouched(root, proof.records, proof.member.node_id, verify).record
        assert (genesis.mesh_id, record.name, record.removed) == (proof.mesh_id, name, name == "n1")
    for wrong, fault in (("", InvalidRequest), ("nobody", NotFound)):
        with pytest.raises(fault):
            house.mesh.get_member_proof(ADMIN, mesh_pb2.GetMemberProofRequest(node=wrong))


def test_an_invite_names_every_wrong_field_at_once(house: House) -> None:
    request = mesh_pb2.CreateInviteRequest(
        roles=[common_pb2.Role.ValueType(7)], weight_milli=2**32 - 1, failure_domain="ünder the roof"
    )
    with pytest.raises(InvalidRequest) as refused:
        house.mesh.create_invite(ADMIN, request)
    assert [violation.field for violation in refused.value.violations] == ["roles", "weight_milli", "failure_domain"]


def test_invites_are_listed_in_pages_without_their_secrets_and_taken_back(house: House) -> None:
    tokens = [house.token() for _ in range(3)]
    house.join(tokens[0], NodeKey(b"j" * 32), "late")
    names = {base32(token.invite_id) for token in tokens}
    first = house.mesh.list_invites(ADMIN, mesh_pb2.ListInvitesRequest(page_size=2))
    rest = house.mesh.list_invites(ADMIN, mesh_pb2.ListInvitesRequest(page_size=2, page_token=first.next_page_token))
    assert {each.invite_id for page in (first, rest) for each in page.invites} == names
    assert not any(token.secret in page.SerializeToString() for page in (first, rest) for token in tokens)
    still_open = house.mesh.list_invites(ADMIN, mesh_pb2.ListInvitesRequest(open_only=True)).invites
    assert {each.invite_id for each in still_open} == names - {base32(tokens[0].invite_id)}
    taken = house.end(house.mesh.revoke_invite(ADMIN, mesh_pb2.RevokeInviteRequest(invite=still_open[0].invite_id)))
    assert taken == mesh_pb2.RevokeInviteResponse(invite=still_open[0])
    assert len(house.mesh.list_invites(ADMIN, mesh_pb2.ListInvitesRequest()).invites) == 2
    with pytest.raises(InvalidRequest):
        house.mesh.revoke_invite(ADMIN, mesh_pb2.RevokeInviteRequest())


def test_removing_nobody_in_particular_is_refused(house: House) -> None:
    with pytest.raises(InvalidRequest):
        house.mesh.remove_member(ADMIN, mesh_pb2.RemoveMemberRequest())


def test_a_member_is_answered_and_a_stranger_is_not(house: House) -> None:
    answer = house.end(house.mesh.ping(MEMBER, mesh_pb2.PingRequest()))
    assert isinstance(answer, mesh_pb2.PingResponse)
    assert answer.news[0].node_id == NODE.node_id
    stranger = Caller(Kind.MEMBER, NodeKey(b"s" * 32).node_id)
    with pytest.raises(PermissionDenied):
        house.end(house.mesh.ping(stranger, mesh_pb2.PingRequest()))
    with pytest.raises(PermissionDenied):
        house.end(house.mesh.sync_members(stranger, mesh_pb2.SyncMembersRequest()))
    with pytest.raises(InvalidRequest):
        house.end(house.mesh.ping_via(MEMBER, mesh_pb2.PingViaRequest(target="nobody")))


def test_weights_and_genesis(house: House) -> None:
    house.fill(2)
    quorums = QuorumHandlers(house.runtime, NODE.node_id, lambda: mesh_of(house.runtime).directory, verify)
    weights = quorums.list_weights(ADMIN, quorum_pb2.ListWeightsRequest())
    assert (weights.total_milli, weights.alive_milli, len(weights.weights)) == (3_000, 1_000, 3)
    ledger = LedgerHandlers(house.runtime, NODE, lambda: mesh_of(house.runtime).directory, verify, Bulk(inline), house)
    answer = ledger.get_genesis(ADMIN, ledger_pb2.GetGenesisRequest())
    genesis = open_genesis(answer.genesis, verify)
    assert (answer.mesh, answer.mesh_id, answer.root_key) == ("home", genesis.mesh_id, ROOT.public_key)
    assert (answer.open, list(answer.witnesses)) == (False, []), "whoever witnesses is named when the ledger is opened"


# ---- the door


def test_a_joiner_gets_a_grant_that_it_can_adopt(house: House) -> None:
    token, key = house.token(), NodeKey(b"j" * 32)
    grant = house.join(token, key, "late")
    rows = adopt_grant(grant, token.mesh_tag, key.node_id, verify=verify, check_certificate=check_identity_certificate)
    assert ("members", key.node_id.encode()) in rows
    assert house.join(token, key, "late") == grant, "asked again after a crash"


def test_a_spent_invite_is_refused_to_another_key(house: House) -> None:
    token = house.token()
    house.join(token, NodeKey(b"j" * 32), "late")
    with pytest.raises(FailedPrecondition) as refused:
        house.join(token, NodeKey(b"k" * 32), "other")
    assert refused.value.reason == "InviteUsed"


def test_strangers_cannot_tell_a_wrong_invite_from_a_wrong_secret(house: House) -> None:
    token, key = house.token(), NodeKey(b"j" * 32)
    right = request_of(token, key, "late")
    attempts = [
        mesh_pb2.JoinRequest(invite_id=bytes(8), sealed=right.sealed),
        mesh_pb2.JoinRequest(invite_id=b"", sealed=right.sealed),
        mesh_pb2.JoinRequest(invite_id=right.invite_id, sealed=bytes(100)),
        mesh_pb2.JoinRequest(invite_id=right.invite_id, sealed=b""),
        mesh_pb2.JoinRequest(invite_id=right.invite_id, sealed=bytes(20_000)),
    ]
    answers = set()
    for attempt in attempts:
        with pytest.raises(PermissionDenied) as refused:
            house.door.join(ANONYMOUS, attempt)
        answers.add((refused.value.reason, refused.value.message))
    assert len(answers) == 1


def test_a_holder_of_the_secret_must_still_ask_properly(house: House) -> None:
    token, key, other = house.token(), NodeKey(b"j" * 32), NodeKey(b"k" * 32)
    good = join_ask(token.mesh_tag, token.invite_id, "late", identity_certificate(key), key)
    wrong = [
        mesh_pb2.JoinAsk(name="Bad Name", certificate=good.certificate, proof=good.proof),
        mesh_pb2.JoinAsk(name="renamed", certificate=good.certificate, proof=good.proof),
        mesh_pb2.JoinAsk(name="late", certificate=identity_certificate(other), proof=good.proof),
        mesh_pb2.JoinAsk(name="late", certificate=b"junk", proof=good.proof),
        join_ask(token.mesh_tag, bytes(8), "late", identity_certificate(key), key),
        join_ask(bytes(8), token.invite_id, "late", identity_certificate(key), key),
    ]
    for ask in wrong:
        with pytest.raises(InvalidRequest):
            house.door.join(ANONYMOUS, sealed_request(token, ask))
    assert house.join(token, key, "late"), "the invite is still open"


def test_after_twenty_failures_a_minute_the_door_only_says_when_to_come_back(house: House) -> None:
    token = house.token()
    guess = mesh_pb2.JoinRequest(invite_id=token.invite_id, sealed=bytes(100))
    for _ in range(FAILURES_MAX):
        house.now_ms += 1_000
        with pytest.raises(PermissionDenied):
            house.door.join(ANONYMOUS, guess)
    with pytest.raises(Exhausted) as limited:
        house.door.join(ANONYMOUS, guess)
    assert limited.value.retry_ms == 41_000
    assert house.join(token, NodeKey(b"j" * 32), "late"), "noise does not shut the door on an invited node"
    house.now_ms += 41_000
    with pytest.raises(PermissionDenied):
        house.door.join(ANONYMOUS, guess)
