"""Takes back what a restored node put after its journal's last safe segment: hosts keep it, its rows do not know it.

Manifest and epoch are this node's own word, under its signature, and beside them lie the object's key and this node's
note of it (name, request), sealed for it alone. Who else may read it they say themselves, and nothing follows from it
but that people see it. The bytes come here, are compared with the manifest's roots, and the machine takes the object in
(`protocol/objects/regaining.py`). What too little is left of, by the word of every member, nobody can ever read: hosts
are let drop it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Protocol

import msgspec
from google.protobuf.message import DecodeError

from offgrid.v1 import objects_pb2
from offgrid_node.keys.stripes import open_size
from offgrid_node.logs import fields
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import (
    Corrupt,
    Fault,
    NotFound,
    PeerFault,
    PermissionDenied,
    Unavailable,
)
from offgrid_node.protocol.events import ObjectAstray, SegmentAstray
from offgrid_node.protocol.objects.commands import NotRegained, TakeBack, Unreadable
from offgrid_node.protocol.objects.errands import Regain
from offgrid_node.protocol.objects.hashing import wrong_shards
from offgrid_node.protocol.objects.manifest import Manifest, verify_manifest
from offgrid_node.protocol.objects.segments import SegmentHead, is_segment, verify_head
from offgrid_node.protocol.objects.sharing import for_host
from offgrid_node.protocol.objects.tables import META, OBJECTS, quorum_id_of
from offgrid_node.protocol.quorum.records import Epoch, verify_epoch
from offgrid_node.protocol.quorum.tables import LIFE
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, asked, run, together
from offgrid_node.services.objects.fetching import Fetching
from offgrid_node.services.objects.holders import Carrier, Holders, call
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.reading import SILENT, Reading
from offgrid_node.services.objects.sealing import Wraps
from offgrid_node.services.objects.source import ShardSource

TOGETHER_MAX = 4  # objects at once: each comes here whole
WAITING_MAX = 10_000  # as many as one comparison names; others are named again
SHOW_TIMEOUT_MS = 10_000
READER_TIMEOUT_MS = 2_000  # of whom nothing but that is wanted: many objects wait behind this one
NOTHING = "ReplicaNotFound"
NOT_GIVEN = frozenset({"NoReplica", "WrongRoot"})  # by those who claim to keep it

_log = logging.getLogger(__name__)


class Members(Protocol):
    """Who is asked, and what this node signed with."""

    @property
    def salt(self) -> bytes: ...

    def keys(self, node_id: str) -> Sequence[bytes]: ...

    def current_key(self, node_id: str) -> bytes | None: ...

    def live(self) -> Sequence[str]: ...


class _Found(msgspec.Struct):
    """What members have shown of an object: the wrapped manifest and the newest epoch, this node's note, who keeps
    what, and who has not said whether he keeps any."""

    object_id: str
    manifest: objects_pb2.Manifest | None = None
    epoch: Epoch | None = None
    sealed_note: bytes = b""
    note: objects_pb2.ObjectNote | None = None
    shards: dict[int, list[str]] = msgspec.field(default_factory=dict)
    asked: set[str] = msgspec.field(default_factory=set)
    silent: set[str] = msgspec.field(default_factory=set)
    readers: set[str] = msgspec.field(default_factory=set)  # who say that it is shared with them

    @property
    def body(self) -> Manifest | None:
        return Manifest.decode(self.manifest.signed.body) if self.manifest is not None else None

    @property
    def suffices(self) -> bool:
        body = self.body
        return body is not None and len(self.shards) >= body.k


class Regaining:
    """Carries out Regain, some at once. What fails is asked for again when its host is compared again."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        carrier: Carrier,
        members: Callable[[], Members],
        verify: Verifier,
        wraps: Wraps,
        reading: Reading,
        fetching: Fetching,
        source: ShardSource,
        bulk: Bulk,
        keeping: Keeping,
        *,
        cuts: bool,
    ) -> None:
        """`cuts`: whether this node's own journal is cut."""
        self._runtime, self._self_id, self._carrier = runtime, self_id, carrier
        self._members, self._verify, self._wraps = members, verify, wraps
        self._reading, self._fetching = reading, fetching
        self._source, self._bulk, self._keeping, self._cuts = source, bulk, keeping, cuts
        self._waiting: dict[str, dict[str, None]] = {}  # object → who says that he keeps some of it
        self._under_way: set[str] = set()
        self._beginning = False  # what ends at once must not deepen the stack

    def regain(self, work: Regain) -> None:
        """While another is asked who says that he keeps it, this one waits: he may not show it, each time anew."""
        if work.object_id in self._waiting or len(self._waiting) < WAITING_MAX:
            self._waiting.setdefault(work.object_id, {})[work.node] = None
        self._begin()

    def _begin(self) -> None:
        if self._beginning:
            return
        self._beginning = True
        while len(self._under_way) < TOGETHER_MAX and (object_id := self._next()):
            nodes = [*self._waiting.pop(object_id)]
            self._under_way.add(object_id)
            found = _Found(object_id)
            run(self._regain(found, nodes), partial(self._on_end, found, nodes[0]))
        self._beginning = False

    def _next(self) -> str:
        return next((object_id for object_id in self._waiting if object_id not in self._under_way), "")

    def _on_end(self, found: _Found, node: str, end: Fault | None) -> None:
        """What nobody has shown to be this node's own is not told: a host may claim what it likes."""
        self._under_way.discard(found.object_id)
        if found.manifest is not None:
            self._waiting.pop(found.object_id, None)
        if isinstance(end, Fault):
            said = fields("object_not_regained", object=found.object_id, why=end.message)
            _log.info("an object that this node has forgotten is not back yet", extra=said)
            if found.manifest is not None and not is_segment(found.manifest):
                in_vain = _is_in_vain(end, found)
                self._runtime.deliver("objects", NotRegained(found.object_id, node, end.message, in_vain))
        self._begin()

    def _regain(self, found: _Found, nodes: Sequence[str]) -> Flow[None]:
        yield from self._ask(found, nodes)
        if found.manifest is None or found.epoch is None:
            raise Unavailable(f"{', '.join(nodes)} does not show it", reason="NotShown")
        if is_segment(found.manifest):
            head = SegmentHead.decode(found.manifest.segment.body)
            if self._cuts:
                self._runtime.deliver("state", SegmentAstray(head.object_id, head.life))
            return
        if self._runtime.store.get(META, LIFE) is None:
            self._on_unknown(found)
            return
        yield from self._ask(found, list(found.epoch.weights))
        others = list(self._members().live())
        yield from self._ask(found, others, READER_TIMEOUT_MS if found.suffices else SHOW_TIMEOUT_MS)
        if found.suffices:
            yield from self._take_back(found)
        elif found.silent:
            raise Unavailable(f"too little of it is found, and {len(found.silent)} do not answer", reason="Silent")
        else:
            said = fields("object_lost", object=found.object_id)
            _log.warning("too little is left of an object that this node has forgotten: hosts drop it", extra=said)
            self._runtime.deliver("objects", Unreadable(found.object_id))

    def _on_unknown(self, found: _Found) -> None:
        """To a node that was not restored. Without its note it may be a segment of its own that went long ago; and who
        has a key of before could have made it up."""
        key, salt = self._members().current_key(self._self_id), self._members().salt
        if not self._cuts or found.manifest is None or found.note is None or key is None:
            return
        with suppress(PeerFault):
            verify_manifest(found.manifest.signed, [key], self._verify, salt)
            said = fields("store_old", object=found.object_id)
            _log.warning("hosts have an object that this store knows nothing of: it is an old store", extra=said)
            self._runtime.deliver("state", ObjectAstray(found.object_id))

    # ---- who has what

    def _ask(self, found: _Found, nodes: Sequence[str], timeout_ms: int = SHOW_TIMEOUT_MS) -> Flow[None]:
        fresh = [node for node in dict.fromkeys(nodes) if node not in found.asked and node != self._self_id]
        request, kind = objects_pb2.ShowReplicaRequest(object_id=found.object_id), objects_pb2.ShowReplicaResponse
        found.asked.update(fresh)
        answers = yield together(
            [call(self._carrier, node, "ShowReplica", request, kind, timeout_ms=timeout_ms) for node in fresh]
        )
        for node, answer in zip(fresh, answers, strict=True):
            try:
                if isinstance(answer, Fault):
                    raise answer
                self._take(found, node, answer)
            except Fault as fault:
                if not (isinstance(fault, NotFound) and fault.reason == NOTHING):
                    found.silent.add(node)

    def _take(self, found: _Found, node: str, answer: objects_pb2.ShowReplicaResponse) -> None:
        """Raises PeerFault unless this node said all of it, PermissionDenied where the key opens for somebody else."""
        keys, salt = self._members().keys(self._self_id), self._members().salt
        if answer.reads:
            found.readers.add(node)
        if not answer.HasField("manifest"):
            return
        body = verify_manifest(answer.manifest.signed, keys, self._verify, salt)
        epoch = verify_epoch(answer.epoch, keys, self._verify, salt)
        said = epoch.owner, epoch.quorum_id, epoch.subject
        if body.object_id != found.object_id or said != (self._self_id, quorum_id_of(found.object_id), body.subject):
            raise PeerFault(f"{node} shows another object than {found.object_id}", reason="WrongObject")
        if is_segment(answer.manifest):
            verify_head(answer.manifest, body, keys, self._verify, salt)
        manifest = for_host(answer.manifest, self._self_id)
        self._reading.key_of(manifest)
        if found.note is None and (note := self._note_in(manifest)) is not None:
            found.sealed_note, found.note = manifest.note, note
        if found.epoch is None or found.epoch.epoch < epoch.epoch:
            found.manifest, found.epoch = manifest, epoch
        for shard in {*answer.shards[: body.n]} & {*range(body.n)}:
            found.shards.setdefault(shard, []).append(node)

    def _note_in(self, manifest: objects_pb2.Manifest) -> objects_pb2.ObjectNote | None:
        """None where there is none, or a host has put something else into its place."""
        use = Manifest.decode(manifest.signed.body).object_id.encode()
        try:
            return objects_pb2.ObjectNote.FromString(self._wraps.open_note(manifest.note, use))
        except (PermissionDenied, DecodeError):
            return None

    # ---- back

    def _take_back(self, found: _Found) -> Flow[None]:
        assert found.manifest is not None
        assert found.epoch is not None
        manifest, note = found.manifest, found.note or objects_pb2.ObjectNote()
        manifest.note = found.sealed_note
        body = Manifest.decode(manifest.signed.body)
        holders = Holders(shards=found.shards)
        former_whole = yield from self._is_whole(note.replaces)
        with self._keeping.vouch(body.object_id):
            yield from self._fetching.bring(manifest, lambda: holders)
            if (yield self._bulk.run(lambda: self._is_other(body), key=body.object_id)):
                self._keeping.drop(body.object_id)
                raise Corrupt("what hosts keep is not what this node signed", reason="WrongRoot")
            readers = tuple(found.readers)
            size_bytes = open_size(self._reading.key_of(manifest), body)
            command = TakeBack(manifest, body, found.epoch.required_milli, note, size_bytes, former_whole, readers)
            try:
                yield asked(self._runtime.ask("objects", self._self_id, command, size_bytes=manifest.ByteSize()))
            except Fault:
                self._keeping.drop(body.object_id)  # it comes again
                raise
        said = fields("object_regained", object=body.object_id)
        _log.warning("an object is back from hosts: this node had forgotten it with its disk", extra=said)

    def _is_whole(self, object_id: str) -> Flow[bool]:
        """Whether an object that is known here can be read from members. All of it is read: what it leaves superfluous
        is dropped, so nobody is believed. Raises Unavailable while somebody may have some of it."""
        value = self._runtime.store.get(OBJECTS, object_id.encode()) if object_id else None
        if value is None:
            return False
        manifest, found = objects_pb2.ObjectRow.FromString(value).object.manifest, _Found(object_id)
        yield from self._ask(found, list(self._members().live()))
        if not found.suffices and found.silent:
            text = f"it was to take the place of {object_id}, of which {len(found.silent)} members have yet to say"
            raise Unavailable(f"{text} whether they keep any", reason="Silent")
        if not found.suffices:
            return False
        body, key = Manifest.decode(manifest.signed.body), self._reading.key_of(manifest)
        try:
            for index in range(body.stripes):
                yield from self._reading.stripe(body, key, index, Holders(shards=found.shards))
        except Unavailable as fault:
            if not _is_in_vain(fault, found):
                raise
            return False
        return True

    def _is_other(self, body: Manifest) -> bool:
        """In a thread: a host that wraps a key of its own could have had other bytes open."""
        shards = range(body.n)
        return bool(wrong_shards(body, shards, self._source.pieces(body, shards), self._members().salt))


def _is_in_vain(fault: Fault, found: _Found) -> bool:
    """Whether it is of no use to ask again: all have answered, also those who were to give bytes. One whom a slow road
    keeps from that may give them another time."""
    return fault.reason in NOT_GIVEN and not found.silent and SILENT not in fault.metadata
