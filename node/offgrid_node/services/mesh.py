"""MeshService: what a node is, who its peers are, inviting, removing, and the members' own traffic (SWIM, gossip)."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.errors import FailedPrecondition, FieldViolation, InvalidRequest
from offgrid_node.protocol.mesh.commands import CreateInvite, RemoveMember, RevokeInvite
from offgrid_node.protocol.mesh.invites import list_invites
from offgrid_node.protocol.mesh.machine import MeshMachine
from offgrid_node.protocol.mesh.records import (
    DOMAIN_CHARS_MAX,
    ROLES_ALL,
    WEIGHT_MILLI_DEFAULT,
    WEIGHT_MILLI_MAX,
    check_text,
)
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.protocol.mesh.views import invite_message, member_message, role_list
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller, Kind
from offgrid_node.services.health.facts import HealthFacts
from offgrid_node.services.kept_facts import KeptFacts
from offgrid_node.services.paging import decode_token, take_page


def no_page_link() -> mesh_pb2.CreatePageLinkResponse:
    """Of a node without a gateway."""
    raise FailedPrecondition(
        'this node has no gateway: gateway.listen is "off" in its offgrid.toml; set it to "auto" and start it again',
        reason="GatewayOff",
    )


class NodeFacts(msgspec.Struct, frozen=True):
    """What GetStatus tells beyond the mesh and the runtime."""

    version: str
    uptime_ms: int
    data_dir: str
    commit_ms_p50: float
    commit_mode: str
    jobs_open: int = 0
    slots_total: int = 0
    slots_busy: int = 0
    notices: tuple[str, ...] = ()
    heard: frozenset[str] | None = None  # node ids, by mDNS; None where nobody listens
    ledger: str = ""
    coder: str = ""
    journal_safe_seq: int | None = None
    repair_bytes_per_s: int = 0
    repair_pulled_bytes: int = 0
    repair_given_bytes: int = 0
    scrub_read_bytes: int = 0
    scrub_damaged: int = 0
    audit_verified: int = 0
    audit_oldest_us: int = 0
    audit_wrong: int = 0
    audit_read_bytes: int = 0
    retention: str = ""
    gateway: str = ""  # to this machine's commands
    gateway_told: str = ""  # as other machines reach it
    health: HealthFacts = msgspec.field(default_factory=HealthFacts)
    objects: mesh_pb2.ObjectRisks | None = None  # to its owner alone
    page_link: Callable[[], mesh_pb2.CreatePageLinkResponse] = no_page_link
    stop: Callable[[], None] = lambda: None
    kept: Callable[[], KeptFacts] = KeptFacts  # asked for metrics alone


def mesh_of(runtime: Runtime) -> MeshMachine:
    """The mesh machine that runs now; raises as `Runtime.machine`."""
    return runtime.machine("mesh", MeshMachine)


def notices_of(facts: NodeFacts, mesh: MeshMachine) -> list[str]:
    """All that the node says that its owner should know."""
    return [*facts.notices, *facts.health.notices, *mesh.notices]


class MeshHandlers:
    """Handlers of offgrid.v1.MeshService."""

    def __init__(self, runtime: Runtime, self_id: str, facts: Callable[[], NodeFacts]) -> None:
        self._runtime = runtime
        self._self_id = self_id
        self._facts = facts

    def get_status(self, caller: Caller, request: mesh_pb2.GetStatusRequest) -> mesh_pb2.GetStatusResponse:
        mesh, facts = mesh_of(self._runtime), self._facts()
        directory = mesh.directory
        record, members = directory.member(self._self_id), directory.live()
        return mesh_pb2.GetStatusResponse(
            node_id=self._self_id,
            name=record.name if record else "",
            mesh=directory.mesh_name,
            mesh_id=directory.mesh_id,
            roles=role_list(directory.roles_in_force(self._self_id)),
            version=facts.version,
            uptime_ms=facts.uptime_ms,
            peers_alive=sum(mesh.liveness(node_id) == ALIVE for node_id in members),
            peers_total=len(members),
            journal_seq=self._runtime.store.journal_seq,
            inbox_depth=self._runtime.inbox_depth,
            commit_ms_p50=facts.commit_ms_p50,
            commit_mode=facts.commit_mode,
            data_dir=facts.data_dir if caller.kind is Kind.ADMIN else "",
            jobs_open=facts.jobs_open,
            slots_total=facts.slots_total,
            slots_busy=facts.slots_busy,
            removed=mesh.removed,
            notices=notices_of(facts, mesh),
            ledger=facts.ledger,
            coder=facts.coder,
            journal_safe_seq=facts.journal_safe_seq,
            repair_bytes_per_s=facts.repair_bytes_per_s,
            repair_pulled_bytes=facts.repair_pulled_bytes,
            repair_given_bytes=facts.repair_given_bytes,
            scrub_read_bytes=facts.scrub_read_bytes,
            scrub_damaged=facts.scrub_damaged,
            audit_verified=facts.audit_verified,
            audit_oldest_us=facts.audit_oldest_us,
            audit_wrong=facts.audit_wrong,
            audit_read_bytes=facts.audit_read_bytes,
            retention=facts.retention,
            gateway=facts.gateway if caller.kind is Kind.ADMIN else facts.gateway_told,
            objects=facts.objects if caller.kind is Kind.ADMIN else None,
            page=facts.gateway_told,
            alerts=[each for each in facts.health.alerts if not each.about or each.state != mesh_pb2.ALERT_STATE_OK],
        )

    def list_peers(self, caller: Caller, request: mesh_pb2.ListPeersRequest) -> mesh_pb2.ListPeersResponse:
        """Sorted by node id; a page's token is the next one's first id: members who come and go disturb nothing."""
        start = _node_id_in(request.page_token)
        mesh = mesh_of(self._runtime)
        ids = mesh.directory.all_ids() if request.include_removed else mesh.directory.live()
        rest = (node_id for node_id in ids if node_id >= start)
        found = ((node_id.encode("ascii"), peer) for node_id in rest if (peer := mesh.peer(node_id)))
        peers, token = take_page(found, request.page_size)
        return mesh_pb2.ListPeersResponse(peers=peers, next_page_token=token)

    def get_member_proof(
        self, caller: Caller, request: mesh_pb2.GetMemberProofRequest
    ) -> mesh_pb2.GetMemberProofResponse:
        if not request.node:
            raise InvalidRequest.field("node", "say which: a node id, its first 4 characters or more, or a name")
        directory = mesh_of(self._runtime).directory
        node_id = directory.resolve(request.node, removed=True)
        record = directory.member(node_id)
        assert record is not None
        return mesh_pb2.GetMemberProofResponse(
            genesis=directory.signed_genesis,
            records=directory.vouchers(node_id),
            member=member_message(record, directory.key_number(node_id)),
            mesh_id=directory.mesh_id,
            root=mesh_pb2.RootChanges(changes=directory.root.changes),
        )

    def create_invite(self, caller: Caller, request: mesh_pb2.CreateInviteRequest) -> Ticket:
        wrong = []
        if not set(request.roles) <= ROLES_ALL:
            wrong.append(FieldViolation("roles", "allowed: ROLE_CORE, ROLE_BROKER, ROLE_HOST"))
        if request.weight_milli > WEIGHT_MILLI_MAX:
            wrong.append(FieldViolation("weight_milli", f"at most {WEIGHT_MILLI_MAX}"))
        try:
            check_text("failure_domain", request.failure_domain, DOMAIN_CHARS_MAX)
        except ValueError as error:
            wrong.append(FieldViolation("failure_domain", str(error)))
        if wrong:
            message = "; ".join(f"{violation.field}: {violation.description}" for violation in wrong)
            raise InvalidRequest(message, violations=wrong)
        roles = frozenset(int(role) for role in request.roles) or ROLES_ALL
        command = CreateInvite(roles, request.weight_milli or WEIGHT_MILLI_DEFAULT, request.failure_domain)
        return self._runtime.ask("mesh", str(caller), command)

    def list_invites(self, caller: Caller, request: mesh_pb2.ListInvitesRequest) -> mesh_pb2.ListInvitesResponse:
        """In the order of their ids, which are chance."""
        start = decode_token(request.page_token)
        known = list_invites(self._runtime.store, start)
        found = ((each.invite_id, invite_message(each)) for each in known if not (request.open_only and each.used_by))
        invites, token = take_page(found, request.page_size)
        return mesh_pb2.ListInvitesResponse(invites=invites, next_page_token=token)

    def revoke_invite(self, caller: Caller, request: mesh_pb2.RevokeInviteRequest) -> Ticket:
        if not request.invite:
            raise InvalidRequest.field("invite", "say which: its id, or the id's first 4 characters or more")
        return self._runtime.ask("mesh", str(caller), RevokeInvite(request.invite))

    def remove_member(self, caller: Caller, request: mesh_pb2.RemoveMemberRequest) -> Ticket:
        if not request.node:
            raise InvalidRequest.field("node", "say which: a node id, its first 4 characters or more, or a name")
        return self._runtime.ask("mesh", str(caller), RemoveMember(request.node))

    def create_page_link(
        self, caller: Caller, request: mesh_pb2.CreatePageLinkRequest
    ) -> mesh_pb2.CreatePageLinkResponse:
        return self._facts().page_link()

    def stop_node(self, caller: Caller, request: mesh_pb2.StopNodeRequest) -> mesh_pb2.StopNodeResponse:
        self._facts().stop()
        return mesh_pb2.StopNodeResponse()

    def ping(self, caller: Caller, request: mesh_pb2.PingRequest) -> Ticket:
        return self._runtime.ask("mesh", caller.node_id, request)

    def ping_via(self, caller: Caller, request: mesh_pb2.PingViaRequest) -> Ticket:
        return self._runtime.ask("mesh", caller.node_id, request)

    def sync_members(self, caller: Caller, request: mesh_pb2.SyncMembersRequest) -> Ticket:
        return self._runtime.ask("mesh", caller.node_id, request)


def _node_id_in(token: str) -> str:
    try:
        return decode_token(token).decode("ascii")
    except UnicodeDecodeError as error:
        raise InvalidRequest.field("page_token", "not a token of this service") from error
