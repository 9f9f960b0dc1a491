"""The owner's part: it opens quorums, signs their epochs, and counts the acks that come.

An epoch's number only rises. A quorum that cannot be reached with its members, or lost what one of them held, gets the
next epoch (`succession.py`). No quorum is kept in memory: a row is read when an ack comes.
"""

from __future__ import annotations

from collections.abc import Callable

from offgrid.v1 import common_pb2, quorum_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import (
    AlreadyExists,
    Exhausted,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    PeerFault,
)
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import AckArrived, AckRefused, OpenQuorum, QuorumAcked, QuorumOpened
from offgrid_node.protocol.quorum.commands import AckQuorum, AckTag, CreateQuorum
from offgrid_node.protocol.quorum.enough import decimal
from offgrid_node.protocol.quorum.member import Signing
from offgrid_node.protocol.quorum.records import NOTHING, Epoch, Member, sign_epoch
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.protocol.quorum.succession import number_after, successor, wants_another
from offgrid_node.protocol.quorum.tables import LIFE, META, QUORUMS, number_of, quorum_key
from offgrid_node.protocol.quorum.tally import Tally

WAITING_MAX = 1_000  # requests that wait for another node's ack
ACK_TIMEOUT_MS = 5_000
SIGN_ACK = "offgrid.v1.QuorumService/SignAck"


class Owner:
    """This node's own quorums. For the brokers `on_change` numbers a row's change before it is written, `on_closed` its
    end before it is deleted."""

    def __init__(
        self,
        settings: QuorumSettings,
        signing: Signing,
        draft: Draft,
        on_change: Callable[[quorum_pb2.QuorumRow, str, Now], None],
        on_closed: Callable[[quorum_pb2.QuorumRow, str, Now], None],
    ) -> None:
        self._settings, self._signing, self._draft = settings, signing, draft
        self._on_change, self._on_closed = on_change, on_closed
        self._waiting: dict[AckTag, list[int]] = {}

    # ---- from this node's owner

    def on_create(self, ticket: int, command: CreateQuorum, now: Now) -> None:
        """Raises AlreadyExists (QuorumExists), InvalidRequest."""
        tally = self._find(command.quorum_id)
        if tally is None:
            total = sum(member.weight_milli for member in command.members)
            if command.required_milli > total:
                text = f"{decimal(command.required_milli)}; the members weigh {decimal(total)} altogether"
                raise InvalidRequest.field("required_milli", text)
            owner, required = self._settings.node_id, command.required_milli
            number = number_after(0, self._life())
            epoch = Epoch(owner, command.quorum_id, number, NOTHING, 0, required, command.members)
            tally = self._open(epoch, None, now)
        elif _differs(tally.epoch, command.required_milli, command.members if command.named else None):
            raise AlreadyExists(
                f"quorum {command.quorum_id} exists, with {decimal(tally.epoch.required_milli)} required of "
                f"{len(tally.epoch.members)} members",
                reason="QuorumExists",
                metadata={"quorum_id": command.quorum_id},
            )
        self._draft.reply(ticket, quorum_pb2.CreateQuorumResponse(quorum=tally.message()))

    def on_ack(self, ticket: int, command: AckQuorum, now: Now) -> None:
        """Raises NotFound (QuorumNotFound), FailedPrecondition (NoMember, NeedsBytes), Exhausted (TooManyWait)."""
        tally, node_id = self._get(command.quorum_id), command.node_id
        if node_id not in tally.epoch.weights:
            raise FailedPrecondition(f"{node_id} is no member of {command.quorum_id}", reason="NoMember")
        if node_id in tally.held:
            self._draft.reply(ticket, quorum_pb2.AckQuorumResponse(quorum=tally.message()))
        elif node_id == self._settings.node_id:
            self._count(tally, node_id, self._signing.ack(tally.epoch), now)
            self._draft.reply(ticket, quorum_pb2.AckQuorumResponse(quorum=tally.message()))
        else:
            self._ask(ticket, tally, node_id)

    def _ask(self, ticket: int, tally: Tally, node_id: str) -> None:
        if sum(map(len, self._waiting.values())) >= WAITING_MAX:
            text = f"{WAITING_MAX} requests wait for acks of other nodes, and no more may"
            raise Exhausted(text, reason="TooManyWait", retry_ms=1_000)
        tag = AckTag(tally.epoch.quorum_id, node_id, tally.epoch.epoch)
        if tag not in self._waiting:
            request = quorum_pb2.SignAckRequest(epoch=tally.row.epoch)
            self._draft.send(Call("quorum", node_id, SIGN_ACK, request, tag, ACK_TIMEOUT_MS))
        self._waiting.setdefault(tag, []).append(ticket)

    def on_signed(self, tag: AckTag, answer: Answered, now: Now) -> None:
        """The end of a SignAck."""
        outcome: quorum_pb2.AckQuorumResponse | Fault
        try:
            if answer.fault is not None:
                raise answer.fault
            assert isinstance(answer.reply, quorum_pb2.SignAckResponse)
            tally = self._get(tag.quorum_id)
            self._count(tally, tag.node_id, answer.reply.ack, now)
            outcome = quorum_pb2.AckQuorumResponse(quorum=tally.message())
        except Fault as fault:
            outcome = fault
        for ticket in self._waiting.pop(tag, ()):
            self._draft.reply(ticket, outcome)

    # ---- from objects

    def on_open(self, event: OpenQuorum, now: Now) -> None:
        tally = self._find(event.quorum_id)
        if tally is None:
            first = successor(self._settings.node_id, None, event, self._life())
            tally = self._open(first, None, now, quiet=event.quiet)
        elif wants_another(tally.epoch, event) and (event.though_reached or not tally.reached):
            epoch = successor(self._settings.node_id, tally.epoch, event, self._life())
            tally = self._open(epoch, tally.row, now, quiet=tally.row.quiet)
        held = tuple(tally.held.items())
        opened = QuorumOpened(event.quorum_id, tally.row.epoch, held, tally.acked_milli, tally.reached)
        self._draft.tell("objects", opened)

    def on_close(self, quorum_id: str, now: Now) -> None:
        """One that is not known is closed."""
        tally = self._find(quorum_id)
        if tally is not None:
            self._on_closed(tally.row, quorum_id, now)
            self._draft.delete(QUORUMS, quorum_key(self._settings.node_id, quorum_id))

    def on_arrived(self, event: AckArrived, now: Now) -> None:
        try:
            tally = self._get(event.quorum_id)
            self._count(tally, event.node_id, event.ack, now)
        except (NotFound, PeerFault) as fault:
            self._draft.tell("objects", AckRefused(event.quorum_id, event.node_id, fault.message))
            return
        shards = tally.held[event.node_id]
        acked = QuorumAcked(event.quorum_id, event.node_id, shards, tally.acked_milli, tally.reached)
        self._draft.tell("objects", acked)

    # ---- inside

    def _get(self, quorum_id: str) -> Tally:
        tally = self._find(quorum_id)
        if tally is None:
            text, metadata = f"this node owns no quorum {quorum_id!r}", {"quorum_id": quorum_id}
            raise NotFound(text, reason="QuorumNotFound", metadata=metadata)
        return tally

    def _life(self) -> int:
        return number_of(self._draft.get(META, LIFE))

    def _find(self, quorum_id: str) -> Tally | None:
        row = self._draft.row(QUORUMS, quorum_key(self._settings.node_id, quorum_id), quorum_pb2.QuorumRow)
        return Tally(row) if row is not None else None

    def _open(self, epoch: Epoch, before: quorum_pb2.QuorumRow | None, now: Now, *, quiet: bool = False) -> Tally:
        created_us = before.created_us if before is not None else now.utc_us
        tally = Tally.opened(sign_epoch(epoch, self._settings.signer, self._settings.salt), created_us, before)
        tally.row.quiet = quiet
        if before is not None:
            tally.row.change = before.change
        self._keep(tally, now)
        self._record(EventType.QUORUM_CREATED, tally, "")
        return tally

    def _count(self, tally: Tally, node_id: str, signed: common_pb2.Signed, now: Now) -> None:
        """Raises PeerFault for an ack that cannot count."""
        if not tally.add(node_id, signed, now.utc_us):
            return
        self._keep(tally, now)
        self._record(EventType.QUORUM_ACKED, tally, node_id)

    def _keep(self, tally: Tally, now: Now) -> None:
        quorum_id = tally.epoch.quorum_id
        if not tally.row.quiet:
            self._on_change(tally.row, quorum_id, now)
        self._draft.put(QUORUMS, quorum_key(self._settings.node_id, quorum_id), tally.row)

    def _record(self, etype: EventType, tally: Tally, node_id: str) -> None:
        if tally.row.quiet:
            return
        event = quorum_pb2.QuorumEvent(
            quorum_id=tally.epoch.quorum_id,
            epoch=tally.epoch.epoch,
            node_id=node_id,
            acked_milli=tally.acked_milli,
            required_milli=tally.epoch.required_milli,
        )
        self._draft.record(etype, tally.epoch.quorum_id, quorum=event)


def _differs(epoch: Epoch, required_milli: int, members: tuple[Member, ...] | None) -> bool:
    """`members` None: any."""
    return epoch.required_milli != required_milli or (
        members is not None and dict(epoch.weights) != {member.node_id: member.weight_milli for member in members}
    )
