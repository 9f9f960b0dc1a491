"""The mesh domain's machine: membership, joining, liveness and gossip behind `step`.

It dispatches inputs to `admission.py`, `liveness.py` and `spreading.py`; at the end of a step `_settle` turns whatever
changed into rows, journal records, pushes and the PeerUp and PeerDown that the other domains live by. Until its first
step it says nothing: a boot counter is made durable together with whatever that step decides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from offgrid.v1 import mesh_pb2, objects_pb2, state_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import (
    Answered,
    Asked,
    Delete,
    Effect,
    Put,
    Raise,
    Record,
    Reply,
    Rows,
    Signer,
    Verifier,
)
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest, PermissionDenied, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import AdminChanged, AdminsKnown, KeyReplaced, PeerUp
from offgrid_node.protocol.mesh.admission import Admission
from offgrid_node.protocol.mesh.commands import (
    AddressesChanged,
    AddressSeen,
    AdmitMember,
    BeaconHeard,
    CreateInvite,
    RemoveMember,
    RevokeInvite,
    RoadLost,
    RoadRefused,
    RotateWrappingKey,
    TellOfAlert,
)
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.exchange import answer
from offgrid_node.protocol.mesh.held import Change, CheckCertificate, RowKey
from offgrid_node.protocol.mesh.liveness import LivenessCalls
from offgrid_node.protocol.mesh.quiet import Quiet
from offgrid_node.protocol.mesh.reach import Reach, reach_row, read_reach
from offgrid_node.protocol.mesh.records import (
    ADDRESSES_MAX,
    PEER_KIND,
    PEER_VERSION_MAX,
    PeerRecord,
    is_address,
    signed,
)
from offgrid_node.protocol.mesh.spreading import FarewellTag, PushTag, RootTag, Spreader, SyncTag
from offgrid_node.protocol.mesh.standing import Standing
from offgrid_node.protocol.mesh.swim import Swim
from offgrid_node.protocol.mesh.views import member_message, peer_message
from offgrid_node.protocol.mesh.wrapping import BEGUN_BYTES, BEGUN_KEY, WRAP_NUMBER_MAX
from offgrid_node.protocol.pace import Paces, all_free
from offgrid_node.protocol.rng import Rng

PROBE_INTERVAL_MS = 1_000
BOOT_KEY, REACH_KEY = b"boot", b"reach"
BOOT_BYTES = 8


class MeshSettings(msgspec.Struct, frozen=True):
    """What this node's config says. `roles` are those asked for; addresses are "host:port", best first.

    Without any address the last AddressesChanged that became durable counts, so that a reload forgets nothing.
    """

    roles: frozenset[int]
    addresses: tuple[str, ...]
    door_addresses: tuple[str, ...]
    version: str
    probe_interval_ms: int = PROBE_INTERVAL_MS


class MeshMachine:
    """One node's view of its mesh; a `Machine`. Its public properties are for handlers and carriers, read-only."""

    directory: Directory

    def __init__(
        self,
        settings: MeshSettings,
        signer: Signer,
        verify: Verifier,
        check_certificate: CheckCertificate,
        paces: Paces = all_free,
    ) -> None:
        self._settings = settings
        self._paces = paces
        self._signer = signer
        self._verify = verify
        self._check_certificate = check_certificate
        self._self_id = signer.node_id
        self._started = False
        self._standing = Standing(signer.node_id)
        self._sources: set[str] = set()
        self._admins: set[str] = set()  # as other domains were told

    # ---- Machine

    def load(self, rows: Rows, now: Now) -> None:
        """Raises FailedPrecondition (reason NoMesh) when the node has neither founded nor joined a mesh."""
        self.directory = Directory.load(rows, self._verify, self._check_certificate)
        self._boot = int.from_bytes(rows.get("meta", BOOT_KEY) or b"", "big") + 1
        interval_ms, quiet = self._settings.probe_interval_ms, Quiet(self._paces)
        self._swim = Swim(self._self_id, self._boot, interval_ms, now.mono_ms, quiet)
        self._liveness = LivenessCalls(self._swim, interval_ms, quiet)
        self._spreader = Spreader(self.directory, self._self_id, self._paces)
        self._admission = Admission(self.directory, self._signer, rows)
        self._addresses, self._doors = self._settings.addresses, self._settings.door_addresses
        if not self._addresses and not self._doors:
            self._addresses, self._doors = read_reach(rows.get("meta", REACH_KEY))
        own = self.directory.peer(self._self_id)
        self._wrap_number = own.wrap_number if own else 0
        for node_id in self.directory.live():
            self._swim.watch(node_id, now.mono_ms)

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        effects = [] if self._started else self._start()
        self._sources = set()
        for item in inputs:
            match item:
                case Asked(ticket, caller, command):
                    try:
                        effects += self._asked(ticket, caller, command, now, rng)
                    except Fault as fault:
                        effects.append(Reply(ticket, fault))
                case Answered():
                    effects += self._answered(item, now, rng)
                case AddressesChanged():
                    effects.append(self._reach(item))
                case AddressSeen(node_id, address) if is_address(address):
                    self.directory.add_hint(node_id, address)
                case BeaconHeard() if not self.removed and self.directory.is_member(item.node_id):
                    self._swim.on_beacon(item.node_id, item.incarnation, item.lasts_ms, now.mono_ms)
                    effects += self._spreader.digest_seen(item.node_id, item.digest, now)
                case RoadLost(node_id) if not self.removed and self.directory.is_member(node_id):
                    effects += self._liveness.road_lost(node_id, self.directory.digest(), now)
                case RoadRefused(node_id) if not self.removed:
                    self._liveness.road_refused(node_id, now)
        if not self.removed and self._liveness.deadline_ms() <= now.mono_ms:
            effects += self._liveness.tick(self.directory.digest(), now, rng) + self._spreader.tick()
        return effects + self._settle(now, rng)

    def deadline_ms(self) -> int | None:
        return None if self.removed and self._started else self._liveness.deadline_ms()

    # ---- questions

    @property
    def removed(self) -> bool:
        """Whether this node's own membership was ended; it takes part no longer."""
        record = self.directory.member(self._self_id)
        return record is not None and record.removed

    @property
    def notices(self) -> list[str]:
        """What an operator should know about the mesh, one sentence each."""
        return list(self.directory.notices)

    @property
    def incarnation(self) -> int:
        """Of this node."""
        return self._swim.incarnation

    @property
    def reach(self) -> Reach:
        """Where this node was last reached: its addresses and its doors."""
        return self._addresses, self._doors

    def liveness(self, node_id: str) -> int:
        """A value of offgrid.v1.Liveness: how alive a member seems from here; 0 for anyone else, and for
        everyone once this node was removed and looks no longer."""
        if self.removed or not self.directory.is_member(node_id):
            return 0
        return self._swim.liveness(node_id)

    def peer(self, node_id: str) -> mesh_pb2.Peer | None:
        """A member, removed ones included, as people read it."""
        return peer_message(
            self.directory,
            node_id,
            liveness=self.liveness(node_id),
            incarnation=self._swim.incarnation_of(node_id),
            self_id=self._self_id,
        )

    # ---- inputs

    def _start(self) -> list[Effect]:
        self._started = True
        event = state_pb2.Event(etype=EventType.NODE_STARTED, subject=self._self_id)
        event.node_started.version, event.node_started.incarnation = self._settings.version, self._swim.incarnation
        admins = tuple(filter(self.directory.is_admin, self.directory.live()))
        self._admins = set(admins)
        keys = [news for node_id in self.directory.all_ids() for news in self._tell_ledger(node_id)]
        told = [Raise("ledger", AdminsKnown(admins)), *keys]
        return [Put("meta", BOOT_KEY, self._boot.to_bytes(BOOT_BYTES, "big")), Record(event), *told]

    def _reach(self, change: AddressesChanged) -> Put:
        self._addresses = tuple(filter(is_address, change.addresses))[:ADDRESSES_MAX]
        self._doors = tuple(filter(is_address, change.door_addresses))[:ADDRESSES_MAX]
        return Put("meta", REACH_KEY, reach_row(self._addresses, self._doors))

    def _asked(self, ticket: int, caller: str, command: object, now: Now, rng: Rng) -> list[Effect]:
        match command:
            case CreateInvite():
                invite, effects = self._admission.create_invite(command, self._doors, now, rng)
                return [*effects, Reply(ticket, invite)]
            case RevokeInvite():
                revoked, effects = self._admission.revoke_invite(command)
                return [*effects, Reply(ticket, revoked)]
            case AdmitMember():
                grant, effects = self._admission.admit(command, now)
                return [*effects, Reply(ticket, grant)]
            case RemoveMember():
                response, effects = self._admission.remove(command)
                return [*effects, Reply(ticket, response), *self._spreader.removed(response.member.node_id)]
            case RotateWrappingKey():
                return self._rotate_wrapping_key(ticket, command, now)
            case TellOfAlert(alert):
                subject = alert.about or self._self_id
                event = state_pb2.Event(etype=EventType.HEALTH_CHANGED, subject=subject, alert=alert)
                return [Record(event), Reply(ticket, alert)]
        self._check_takes_part(caller)
        digest = self.directory.digest()
        match command:
            case mesh_pb2.PingRequest():
                return [Reply(ticket, self._liveness.asked_ping(caller, command, digest, now))]
            case mesh_pb2.PingViaRequest():
                if not self.directory.is_member(command.target) or command.target == self._self_id:
                    raise InvalidRequest.field("target", f"{command.target[:64]!r} is no other member")
                return self._liveness.asked_ping_via(ticket, command, digest, now)
            case mesh_pb2.SyncMembersRequest():
                self._sources.add(caller)
                return [Reply(ticket, answer(self.directory, command))]
        raise InvalidRequest(f"the mesh knows no command {type(command).__name__}", reason="UnknownCommand")

    def _rotate_wrapping_key(self, ticket: int, command: RotateWrappingKey, now: Now) -> list[Effect]:
        """Once for a number; `_settle` signs what others are to know of it. All that was sealed before it is so by the
        time that is noted, also where the clock was set back since."""
        effects: list[Effect] = []
        number, begun_us = command.number, max(now.utc_us, command.newest_us + 1)
        if number > self._wrap_number:
            raise InvalidRequest.field("number", f"{number}; the key of now is number {self._wrap_number}")
        if number == self._wrap_number:
            if number == WRAP_NUMBER_MAX:
                text = f"{number} keys were there; offgrid-node rotate identity begins anew"
                raise FailedPrecondition(text, reason="NoKeysLeft")
            self._wrap_number += 1
            effects.append(Put("meta", BEGUN_KEY, begun_us.to_bytes(BEGUN_BYTES, "big")))
        return [*effects, Reply(ticket, objects_pb2.RotateDataKeysResponse(number=self._wrap_number))]

    def _check_takes_part(self, caller: str) -> None:
        if self.removed:
            raise Unavailable("this node was removed from the mesh", reason="NodeRemoved")
        if not self.directory.is_member(caller):
            raise PermissionDenied(f"{caller[:64]} is no member of this mesh", reason="NotAMember")

    def _answered(self, answered: Answered, now: Now, rng: Rng) -> list[Effect]:
        if isinstance(answered.tag, PushTag | RootTag | FarewellTag | SyncTag):
            self._sources.add(answered.node)
            return self._spreader.answered(answered, now)
        if not self.directory.is_member(answered.node):
            return []
        effects = self._liveness.answered(answered, self.directory.digest(), now, rng)
        if isinstance(answered.reply, mesh_pb2.PingResponse):
            effects += self._spreader.digest_seen(answered.node, answered.reply.members_digest, now)
        return effects

    # ---- the end of a step

    def _settle(self, now: Now, rng: Rng) -> list[Effect]:
        """Everything that follows from what has changed, in the order: rows, records, other domains, pushes."""
        self._sign_own_record()
        changes = self.directory.take_changes()
        effects: list[Effect] = _written(self.directory.take_root_row())
        for change in changes:
            effects += [*self._write(change), *self._tell_ledger(change.node_id)]
            if self.directory.is_member(change.node_id):
                self._swim.watch(change.node_id, now.mono_ms)
            else:
                self._swim.forget(change.node_id)
        touched = [change.node_id for change in changes] + self._swim.take_changed()
        for node_id in dict.fromkeys((self._self_id, *touched, *(self._standing.known() if self.removed else ()))):
            effects += self._tell_others(node_id)
        if not self.removed:
            news = [change.node_id for change in changes if change.after is not None]
            effects += self._spreader.push(news, self._swim.alive(), self._sources, rng)
        return effects

    def _sign_own_record(self) -> None:
        """Our own peer record says what the config says; a restored backup may have left an older one."""
        directory, settings = self.directory, self._settings
        if not directory.is_member(self._self_id):
            return
        known, addresses = directory.peer(self._self_id), tuple(filter(is_address, self._addresses))[:ADDRESSES_MAX]
        self._wrap_number = max(self._wrap_number, known.wrap_number if known else 0)
        wanted = settings.roles, addresses, settings.version, self._wrap_number
        if known and (known.roles, known.addresses, known.software, known.wrap_number) == wanted:
            return
        version = min(known.version + 1, PEER_VERSION_MAX) if known else 1
        key = self._signer.wrapping_key(self._wrap_number).key if self._wrap_number else b""
        record = PeerRecord(self._self_id, version, settings.roles, addresses, settings.version, self._wrap_number, key)
        directory.accept_peer(signed(PEER_KIND, directory.salt, record.body, self._signer))

    def _write(self, change: Change) -> list[Effect]:
        effects = _written(self.directory.rows(change.node_id))
        was = change.before is not None and not change.before.removed
        is_now = change.after is not None and not change.after.removed
        if change.member_changed and (was or is_now):
            etype = EventType.MEMBER_ADMITTED if is_now else EventType.MEMBER_REMOVED
            record = change.after or change.before
            assert record is not None
            event = state_pb2.Event(
                etype=etype,
                subject=change.node_id,
                member=member_message(record, self.directory.key_number(change.node_id)),
            )
            effects.append(Record(event))
        return effects

    def _tell_ledger(self, node_id: str) -> list[Effect]:
        number = self.directory.key_number(node_id)
        told: list[Effect] = [Raise("ledger", KeyReplaced(node_id, number))] if number else []
        admin = self.directory.is_admin(node_id)
        if admin != (node_id in self._admins):
            self._admins ^= {node_id}
            told.append(Raise("ledger", AdminChanged(node_id, admin)))
        return told

    def _tell_others(self, node_id: str) -> list[Effect]:
        record = self.directory.member(node_id)
        if record is None or record.removed or self.removed:
            return self._standing.gone(node_id, removed=not self.removed)
        roles = self.directory.roles_in_force(node_id)
        key = self.directory.wrapping_key(node_id)
        label = key.label if key is not None else b""
        up = PeerUp(node_id, record.name, roles, record.weight_milli, record.failure_domain, label)
        return self._standing.report(up, self._swim.liveness(node_id), self._swim.boot_of(node_id))


def _written(rows: Mapping[RowKey, bytes | None]) -> list[Effect]:
    return [Delete(table, key) if value is None else Put(table, key, value) for (table, key), value in rows.items()]
