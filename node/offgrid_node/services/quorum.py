"""QuorumService: weights and quorums as people ask for them, and what owner, member and broker say to each other.

Quorums are read from committed rows. Whose signature is whose is checked here, before a machine sees anything; who the
members are by name is the mesh's to say, so answers are filled in on their way out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2, quorum_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import InvalidRequest, NotFound, PeerFault
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.protocol.objects.tables import OBJECTS, object_of
from offgrid_node.protocol.quorum import commands
from offgrid_node.protocol.quorum.records import (
    MEMBERS_MAX,
    OBJECT_PREFIX,
    QUORUM_ID,
    QUORUM_ID_BYTES_MAX,
    QUORUM_ID_RULE,
    Ack,
    Epoch,
    Member,
    verify_ack,
    verify_epoch,
)
from offgrid_node.protocol.quorum.tables import QUORUMS, quorum_key
from offgrid_node.protocol.quorum.tally import Tally
from offgrid_node.protocol.quorum.telling import PAGE_ROWS
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.mesh import mesh_of
from offgrid_node.services.paging import decode_token, take_page

OWNERS_SHOWN = 4
_OBJECTS = OBJECT_PREFIX.encode()
_BEYOND_OBJECTS = _OBJECTS[:-1] + bytes([_OBJECTS[-1] + 1])  # the first key behind them all


class Members(Protocol):
    """What it takes to check signatures."""

    @property
    def salt(self) -> bytes: ...

    def keys(self, node_id: str) -> Sequence[bytes]: ...


class QuorumHandlers:
    """One method per RPC of QuorumService."""

    def __init__(self, runtime: Runtime, self_id: str, directory: Callable[[], Directory], verify: Verifier) -> None:
        self._runtime, self._self_id, self._directory, self._verify = runtime, self_id, directory, verify

    def list_weights(self, caller: Caller, request: quorum_pb2.ListWeightsRequest) -> quorum_pb2.ListWeightsResponse:
        directory = self._directory()
        weights = [self._known(quorum_pb2.NodeWeight(node_id=node_id)) for node_id in directory.live()]
        for weight in weights:
            record = directory.member(weight.node_id)
            weight.weight_milli = record.weight_milli if record else 0
        return quorum_pb2.ListWeightsResponse(
            weights=weights,
            total_milli=sum(weight.weight_milli for weight in weights),
            alive_milli=sum(weight.weight_milli for weight in weights if weight.alive),
        )

    # ---- from this node's owner

    def create_quorum(self, caller: Caller, request: quorum_pb2.CreateQuorumRequest) -> Ticket:
        quorum_id = _quorum_id(request.quorum_id)
        if quorum_id.startswith(OBJECT_PREFIX):
            text = f"{quorum_id!r}: ids that begin with {OBJECT_PREFIX!r} are those of objects, which open their own"
            raise InvalidRequest.field("quorum_id", text)
        if request.required_milli == 0:
            raise InvalidRequest.field("required_milli", "0; a weight of at least 0.001 (1) is needed")
        members = self._members(request)
        command = commands.CreateQuorum(quorum_id, request.required_milli, members, bool(request.members))
        return self._ask(caller, command, request).map(self._filled)

    def ack_quorum(self, caller: Caller, request: quorum_pb2.AckQuorumRequest) -> Ticket:
        node_id = self._directory().resolve(request.node) if request.node else self._self_id
        command = commands.AckQuorum(_quorum_id(request.quorum_id), node_id)
        return self._ask(caller, command, request).map(self._filled)

    def get_quorum(self, caller: Caller, request: quorum_pb2.GetQuorumRequest) -> Message:
        """This node's own, or one that it keeps track of as a broker."""
        quorum_id, directory = _quorum_id(request.quorum_id), self._directory()
        if request.owner:
            found = self._rows(quorum_id, [directory.resolve(request.owner, removed=True)])
        else:
            others = (node_id for node_id in directory.all_ids() if node_id != self._self_id)
            found = self._rows(quorum_id, [self._self_id]) or self._rows(quorum_id, others)
        if len(found) > 1:
            owners = ", ".join(tally.epoch.owner for tally in found[:OWNERS_SHOWN])
            raise InvalidRequest.field("owner", f"{len(found)} nodes own a quorum {quorum_id}: {owners}; name one")
        if not found:
            text = f"this node knows of no quorum {quorum_id!r}"
            raise NotFound(text, reason="QuorumNotFound", metadata={"quorum_id": quorum_id})
        return self._filled(quorum_pb2.GetQuorumResponse(quorum=found[0].message()))

    def list_quorums(self, caller: Caller, request: quorum_pb2.ListQuorumsRequest) -> Message:
        """By owner, then by id."""
        scan = self._scan(decode_token(request.page_token), request.with_objects)
        rows = ((key, Tally(quorum_pb2.QuorumRow.FromString(value)).message()) for key, value in scan)
        quorums, token = take_page(rows, request.page_size)
        for quorum in quorums:
            self._fill(quorum)
        return quorum_pb2.ListQuorumsResponse(quorums=quorums, next_page_token=token)

    # ---- between nodes

    def sign_ack(self, caller: Caller, request: quorum_pb2.SignAckRequest) -> Ticket:
        return self._ask(caller, commands.SignAck(self._epoch(request.epoch, caller.node_id)), request)

    def track_quorums(self, caller: Caller, request: quorum_pb2.TrackQuorumsRequest) -> Ticket:
        """An ack of somebody whom this node does not know yet is left out; its owner tells more when more changes."""
        for field, count in (("quorums", len(request.quorums)), ("closed", len(request.closed))):
            if count > PAGE_ROWS:
                raise InvalidRequest.field(field, f"{count} entries; at most {PAGE_ROWS} are allowed in one call")
        rows = tuple(self._tracked(f"quorums[{n}]", row, caller.node_id) for n, row in enumerate(request.quorums))
        return self._ask(
            caller,
            commands.TrackQuorums(
                caller.node_id, rows, tuple(map(_quorum_id, request.closed)), request.life, request.number
            ),
            request,
        )

    def _tracked(self, field: str, row: quorum_pb2.QuorumRow, owner: str) -> quorum_pb2.QuorumRow:
        if len(row.acks) > MEMBERS_MAX or len(row.acks) != len(row.acked_us):
            text = f"{len(row.acks)} acks with {len(row.acked_us)} times; {MEMBERS_MAX} at most, and as many of each"
            raise InvalidRequest.field(f"{field}.acks", text)
        self._epoch(row.epoch, owner)
        known = quorum_pb2.QuorumRow(epoch=row.epoch, created_us=row.created_us)
        members = self._directory()
        for signed, acked_us in zip(row.acks, row.acked_us, strict=True):
            keys = members.keys(Ack.decode(signed.body).node)
            if keys:
                verify_ack(signed, keys, self._verify, members.salt)
                known.acks.append(signed)
                known.acked_us.append(acked_us)
        return known

    def _epoch(self, signed: common_pb2.Signed, owner: str) -> Epoch:
        """The caller's own, signed by its key in this mesh."""
        members = self._directory()
        epoch = verify_epoch(signed, members.keys(owner), self._verify, members.salt)
        if epoch.owner != owner:
            raise PeerFault(f"{owner} brought an epoch of {epoch.owner}", reason="ForgedEpoch")
        return epoch

    # ---- inside

    def _members(self, request: quorum_pb2.CreateQuorumRequest) -> tuple[Member, ...]:
        directory = self._directory()
        named = [directory.resolve(text) for text in request.members[: MEMBERS_MAX + 1]] or directory.live()
        if len(named) > MEMBERS_MAX:
            what = "named" if request.members else "in the mesh"
            text = f"{max(len(named), len(request.members))} nodes {what}; name at most {MEMBERS_MAX}"
            raise InvalidRequest.field("members", text)
        if len(set(named)) < len(named):
            raise InvalidRequest.field("members", "a node is named twice")
        records = ((node_id, directory.member(node_id)) for node_id in sorted(named))
        return tuple(Member(node_id, record.weight_milli) for node_id, record in records if record)

    def _scan(self, start: bytes, with_objects: bool) -> Iterator[tuple[bytes, bytes]]:
        """Rows from `start` on; without those of objects, over which it leaps."""
        while True:
            for key, value in self._runtime.store.scan(QUORUMS, start):
                owner, _, quorum_id = key.partition(b"/")
                if not with_objects and quorum_id.startswith(_OBJECTS):
                    start = owner + b"/" + _BEYOND_OBJECTS
                    break
                yield key, value
            else:
                return

    def _rows(self, quorum_id: str, owners: Iterable[str]) -> list[Tally]:
        values = (self._runtime.store.get(QUORUMS, quorum_key(owner, quorum_id)) for owner in owners)
        return [Tally(quorum_pb2.QuorumRow.FromString(value)) for value in values if value is not None]

    def _filled(self, response: Message) -> Message:
        assert isinstance(
            response, quorum_pb2.CreateQuorumResponse | quorum_pb2.AckQuorumResponse | quorum_pb2.GetQuorumResponse
        )
        self._fill(response.quorum)
        return response

    def _fill(self, quorum: quorum_pb2.Quorum) -> None:
        for member in quorum.members:
            self._known(member)
        object_id = object_of(quorum.quorum_id) if quorum.owner == self._self_id else ""
        value = self._runtime.store.get(OBJECTS, object_id.encode()) if object_id else None
        if value is not None:
            acks = objects_pb2.ObjectRow.FromString(value).object.acks
            verified_us = {ack.node_id: ack.verified_us for ack in acks}
            for ack in quorum.acks:
                ack.verified_us = verified_us.get(ack.node_id, 0)

    def _known(self, member: quorum_pb2.NodeWeight) -> quorum_pb2.NodeWeight:
        """Its name, its failure domain, and whether it is alive; a removed one keeps its name."""
        record = self._directory().member(member.node_id)
        if record is not None:
            member.name, member.failure_domain = record.name, record.failure_domain
            member.alive = mesh_of(self._runtime).liveness(member.node_id) == ALIVE
        return member

    def _ask(self, caller: Caller, command: object, request: Message) -> Ticket:
        return self._runtime.ask("quorum", str(caller), command, size_bytes=request.ByteSize())


def check_answer(answer: Message, members: Members, verify: Verifier) -> None:
    """Raises PeerFault for an ack that its node has not signed, by any of its keys: it gives the same ack again, though
    its key was replaced since. Whose ack was asked for, the machine knows."""
    if isinstance(answer, quorum_pb2.SignAckResponse):
        verify_ack(answer.ack, members.keys(Ack.decode(answer.ack.body).node), verify, members.salt)


def _quorum_id(text: str) -> str:
    if not QUORUM_ID.match(text):
        raise InvalidRequest.field("quorum_id", f"{text[:QUORUM_ID_BYTES_MAX]!r}; {QUORUM_ID_RULE} are allowed")
    return text
