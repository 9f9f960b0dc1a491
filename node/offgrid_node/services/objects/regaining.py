"""Takes back what a restored node put after its journal's last safe segment: hosts keep it, its rows do not know it.

Manifest and epoch are this node's own word, under its signature, and the object's key lies beside them, sealed for it.
So it is all there but what hosts never learn: its name, who else may read it, and by which request it came. The bytes
come here, are compared with the manifest's roots, and then it is an object like any other that was just put. What too
little is left of, by the word of every member, nobody can ever read: hosts are let drop it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from offgrid.v1 import objects_pb2
from offgrid_node.keys.stripes import open_size
from offgrid_node.protocol.effects import Regain, Verifier
from offgrid_node.protocol.errors import Corrupt, Fault, InvalidRequest, NotFound, PeerFault, Unavailable
from offgrid_node.protocol.events import SegmentAstray
from offgrid_node.protocol.objects.commands import AddObject, Unreadable
from offgrid_node.protocol.objects.dropping import shards_of
from offgrid_node.protocol.objects.hashing import wrong_shards
from offgrid_node.protocol.objects.manifest import OBJECT_ID, Manifest, verify_manifest
from offgrid_node.protocol.objects.segments import is_segment, verify_head
from offgrid_node.protocol.objects.sharing import only_for
from offgrid_node.protocol.objects.tables import REPLICAS, quorum_id_of, replica_key
from offgrid_node.protocol.quorum.records import Epoch, verify_epoch
from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow, asked, run, together
from offgrid_node.services.objects.fetching import Fetching
from offgrid_node.services.objects.holders import Carrier, Holders, call
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.services.objects.reading import Reading
from offgrid_node.services.objects.source import ShardSource
from offgrid_node.storage.store import Store

TOGETHER_MAX = 4  # objects at once: each comes here whole
WAITING_MAX = 10_000  # as many as one comparison names; others are named again
SHOW_TIMEOUT_MS = 10_000
NOTHING = "ReplicaNotFound"

_log = logging.getLogger(__name__)


class Members(Protocol):
    """Who is asked, and what this node signed with."""

    @property
    def salt(self) -> bytes: ...

    def keys(self, node_id: str) -> Sequence[bytes]: ...

    def live(self) -> Sequence[str]: ...


@dataclass(slots=True)
class _Found:
    """What members have shown of an object: the wrapped manifest and the newest epoch, who keeps what, and who has not
    said whether he keeps any."""

    object_id: str
    manifest: objects_pb2.Manifest | None = None
    epoch: Epoch | None = None
    shards: dict[int, list[str]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)

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
        self._members, self._verify, self._reading, self._fetching = members, verify, reading, fetching
        self._source, self._bulk, self._keeping, self._cuts = source, bulk, keeping, cuts
        self._waiting: dict[str, str] = {}  # object → who keeps some of it
        self._under_way: set[str] = set()
        self._beginning = False  # what ends at once must not deepen the stack

    def regain(self, work: Regain) -> None:
        if work.object_id not in self._under_way and len(self._waiting) < WAITING_MAX:
            self._waiting.setdefault(work.object_id, work.node)
        self._begin()

    def _begin(self) -> None:
        if self._beginning:
            return
        self._beginning = True
        while self._waiting and len(self._under_way) < TOGETHER_MAX:
            object_id = next(iter(self._waiting))
            node = self._waiting.pop(object_id)
            self._under_way.add(object_id)
            run(self._regain(object_id, node), partial(self._on_end, object_id))
        self._beginning = False

    def _on_end(self, object_id: str, end: Fault | None) -> None:
        self._under_way.discard(object_id)
        if isinstance(end, Fault):
            _log.info("%s, which this node has forgotten, is not back yet: %s", object_id, end.message)
        self._begin()

    def _regain(self, object_id: str, node: str) -> Flow[None]:
        found = _Found(object_id)
        yield from self._ask(found, [node])
        if found.manifest is None or found.epoch is None:
            raise Unavailable(f"{node} does not show it", reason="NotShown")
        if is_segment(found.manifest):
            self._on_segment(found.manifest)
            return
        yield from self._ask(found, list(found.epoch.weights))
        if not found.suffices:
            yield from self._ask(found, list(self._members().live()))
        if found.suffices:
            yield from self._take_back(found.manifest, found.epoch.required_milli, found.shards)
        elif found.silent:
            raise Unavailable(f"too little of it is found, and {len(found.silent)} do not answer", reason="Silent")
        else:
            _log.warning("too little is left of %s, which this node has forgotten: hosts drop it", object_id)
            self._runtime.deliver("objects", Unreadable(object_id))

    # ---- who has what

    def _ask(self, found: _Found, nodes: Sequence[str]) -> Flow[None]:
        fresh = [node for node in dict.fromkeys(nodes) if node not in found.asked and node != self._self_id]
        request, kind = objects_pb2.ShowReplicaRequest(object_id=found.object_id), objects_pb2.ShowReplicaResponse
        found.asked.update(fresh)
        answers = yield together(
            [call(self._carrier, node, "ShowReplica", request, kind, timeout_ms=SHOW_TIMEOUT_MS) for node in fresh]
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
        body = verify_manifest(answer.manifest.signed, keys, self._verify, salt)
        epoch = verify_epoch(answer.epoch, keys, self._verify, salt)
        said = epoch.owner, epoch.quorum_id, epoch.subject
        if body.object_id != found.object_id or said != (self._self_id, quorum_id_of(found.object_id), body.subject):
            raise PeerFault(f"{node} shows another object than {found.object_id}", reason="WrongObject")
        manifest = only_for(answer.manifest, self._self_id)
        self._reading.key_of(manifest)
        if found.epoch is None or found.epoch.epoch < epoch.epoch:
            found.manifest, found.epoch = manifest, epoch
        for shard in {*answer.shards[: body.n]} & {*range(body.n)}:
            found.shards.setdefault(shard, []).append(node)

    def _on_segment(self, manifest: objects_pb2.Manifest) -> None:
        """Raises PeerFault where the head is not this node's."""
        members, body = self._members(), Manifest.decode(manifest.signed.body)
        head = verify_head(manifest, body, members.keys(self._self_id), self._verify, members.salt)
        if self._cuts:
            self._runtime.deliver("state", SegmentAstray(head.object_id, head.life))

    # ---- back

    def _take_back(
        self, manifest: objects_pb2.Manifest, required_milli: int, shards: dict[int, list[str]]
    ) -> Flow[None]:
        body = Manifest.decode(manifest.signed.body)
        holders = Holders(shards=shards)
        with self._keeping.vouch(body.object_id):
            yield from self._fetching.bring(manifest, lambda: holders)
            if (yield self._bulk.run(lambda: self._is_other(body), key=body.object_id)):
                self._keeping.drop(body.object_id)
                raise Corrupt("what hosts keep is not what this node signed", reason="WrongRoot")
            size_bytes = open_size(self._reading.key_of(manifest), body)
            command = AddObject(manifest, body, "", required_milli, "", b"", size_bytes=size_bytes)
            yield asked(self._runtime.ask("objects", self._self_id, command, size_bytes=manifest.ByteSize()))
        _log.warning(
            "%s is back from hosts: it was put after the last safe segment of this node's journal", body.object_id
        )

    def _is_other(self, body: Manifest) -> bool:
        """In a thread: a host that wraps a key of its own could have had other bytes open."""
        shards = range(body.n)
        return bool(wrong_shards(body, shards, self._source.pieces(body, shards), self._members().salt))


# ---- at a host


def shown(store: Store, owner: str, object_id: str) -> objects_pb2.ShowReplicaResponse:
    """What is kept here of that owner's object. Raises NotFound (ReplicaNotFound)."""
    if not OBJECT_ID.match(object_id):
        raise InvalidRequest.field("object_id", f"{object_id[:64]!r} is no object id")
    value = store.get(REPLICAS, replica_key(object_id, owner))
    if value is None:
        raise NotFound(f"nothing of {object_id} is kept here", reason=NOTHING)
    row = objects_pb2.ReplicaRow.FromString(value)
    return objects_pb2.ShowReplicaResponse(manifest=row.manifest, epoch=row.epoch, shards=shards_of(row))
