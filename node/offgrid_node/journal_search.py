"""What the members of a mesh keep of a journal whose node has lost its disk, asked as that very node.

Who answers at the one address that is known is nobody that we know yet: it can keep things from us, but it cannot make
up a segment, which only this node's key signs.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec
from google.protobuf.message import DecodeError, Message

from offgrid.pieces import as_a
from offgrid.v1 import mesh_pb2, objects_pb2, state_pb2
from offgrid_node.config.addresses import ADDRESS_RULE, BadAddress, split_address
from offgrid_node.keys import NodeKey, check_identity_certificate, issue_leaf, verify
from offgrid_node.keys.leaf import identity_at
from offgrid_node.keys.stripes import OBJECT_KEY_BYTES, open_stripe
from offgrid_node.keys.wraps import KeyWraps
from offgrid_node.protocol.errors import (
    Corrupt,
    FailedPrecondition,
    Fault,
    InvalidRequest,
    NotFound,
    PeerFault,
    Unavailable,
)
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.exchange import full_request, merge
from offgrid_node.protocol.mesh.records import open_genesis
from offgrid_node.protocol.objects.lives import Life, last_life, sign_life, verify_life
from offgrid_node.protocol.objects.manifest import Manifest, shard_root, stripe_digest, verify_manifest
from offgrid_node.protocol.objects.segments import SegmentHead, verify_head
from offgrid_node.protocol.objects.shards import row_span
from offgrid_node.protocol.state.segment import unpacked
from offgrid_node.services.grpc_road import GrpcRoad

CALL_TIMEOUT_MS = 10_000
EXCHANGES_MAX = 1_000  # of members' records, each a message
PAGES_MAX = 1_000  # of segments, of one host: a hundred thousand of them
LOOK_TIMEOUT_S = 120.0  # for all of a host's pages: nobody keeps a node from coming back by telling slowly
DAMAGED = "SegmentDamaged"
VIA = "via"  # what the member at the given address is called until it has said who it is

M = TypeVar("M", bound=Message)


class _Found(msgspec.Struct):
    """A segment, and who keeps it, each with the wrapped key that he has: that one nobody has signed."""

    body: Manifest
    hosts: dict[str, bytes] = msgspec.field(default_factory=dict)


class _Known:
    """Where members are: `services.grpc_road.DirectoryView`. The one at the given address is known by its certificate
    alone at first."""

    def __init__(self, address: str, certificate: bytes) -> None:
        self._via = address, certificate
        self.directory: Directory | None = None

    def addresses(self, node: str) -> Sequence[str]:
        if node == VIA:
            return [self._via[0]]
        return self.directory.addresses(node) if self.directory is not None else []

    def certificate(self, node: str) -> bytes | None:
        if node == VIA:
            return self._via[1]
        return self.directory.certificate(node) if self.directory is not None else None


class Mesh:
    """The members, asked as the node that is to come back. Use it in one event loop, and close it."""

    def __init__(self, key: NodeKey, address: str) -> None:
        """Raises InvalidRequest where that is no address, Unavailable where nobody answers, PeerFault where who answers
        is no node."""
        try:
            split_address(address)
        except BadAddress as error:
            raise InvalidRequest.field("via", f"{address!r} {error}; allowed is {ADDRESS_RULE}") from error
        self.key, tls = key, issue_leaf(key)
        self._known = _Known(address, identity_at(address, tls))
        self._road = GrpcRoad(tls, lambda: self._known)
        self.found: dict[str, _Found] = {}
        self.heads: dict[str, SegmentHead] = {}
        self.noted: Life | None = None  # the newest that members tell of
        self.silent: list[str] = []
        self.damaged: set[str] = set()  # of what was found, what nobody has whole
        self._failed: Counter[str] = Counter()

    async def close(self) -> None:
        await self._road.close()

    @property
    def directory(self) -> Directory:
        directory = self._known.directory
        assert directory is not None, "meet comes first"
        return directory

    async def meet(self) -> None:
        """Learns who the members are. Raises FailedPrecondition (NotAMember) where this key is none."""
        asked = mesh_pb2.GetMemberProofRequest(node=self.key.node_id)
        told = await self._call(VIA, "MeshService/GetMemberProof", asked, mesh_pb2.GetMemberProofResponse)
        open_genesis(told.genesis, verify)
        self.key = NodeKey(self.key.seed, told.member.node_id)  # a later key does not say itself whose it is
        directory = Directory(told.genesis, verify, check_identity_certificate)
        for _ in range(EXCHANGES_MAX):
            before = directory.digest()
            request = full_request(directory)
            if not request.held:  # who holds nothing is told nothing
                request.held.add(node_id=self.key.node_id)
            answer = await self._call(VIA, "MeshService/SyncMembers", request, mesh_pb2.SyncMembersResponse)
            merge(directory, answer)
            if directory.digest() == before:
                break
        if directory.current_key(self.key.node_id) != self.key.public_key:
            text = f"{self.key.node_id} has another key in mesh {directory.mesh_name}: it was replaced since"
            raise FailedPrecondition(text, reason="KeyReplaced")
        if not directory.is_member(self.key.node_id):
            text = f"{self.key.node_id} is no member of mesh {directory.mesh_name}: was it removed?"
            raise FailedPrecondition(text, reason="NotAMember")
        self._known.directory = directory

    @property
    def key_number(self) -> int:
        """How many keys of this node's went before the present one."""
        return self.directory.key_number(self.key.node_id)

    @property
    def newest_life(self) -> int:
        """As far as those who answered know."""
        return max(self.noted.life if self.noted is not None else 1, *(head.life for head in self.heads.values()))

    async def look(self) -> None:
        """Asks every member what it keeps. What one told before it fell silent counts."""
        others = self._others()
        ends = await asyncio.gather(*map(self._look_at, others), return_exceptions=True)
        for node, end in zip(others, ends, strict=True):
            if isinstance(end, Fault | TimeoutError):
                self.silent.append(self.called(node))
            elif isinstance(end, BaseException):
                raise end

    async def begin(self, life: Life) -> None:
        """Has every member that answers note the life down. Raises FailedPrecondition (LifeTaken) where one shows
        another that is not older, Unavailable where none notes it down. Who refuses and shows none keeps nobody out."""
        request = objects_pb2.BeginLifeRequest(life=sign_life(life, self.key, self.directory.salt))
        others = self._others()
        told = (self._call(node, "ObjectService/BeginLife", request, objects_pb2.BeginLifeResponse) for node in others)
        ends = await asyncio.gather(*told, return_exceptions=True)
        for node, end in zip(others, ends, strict=True):
            if isinstance(end, BaseException) and not isinstance(end, Fault):
                raise end
            if isinstance(end, Fault) and end.reason == "LifeTaken" and await self._shows_over(node, life):
                raise end
        if all(isinstance(end, Fault) for end in ends):
            raise Unavailable("no member could note down that this node begins anew; try again", reason="LifeUntold")

    async def _shows_over(self, node: str, life: Life) -> bool:
        """Whether this member has another life that is not older, signed by this node: its word alone is nothing."""
        request = objects_pb2.ListSegmentsRequest(page_size=1)
        try:
            told = await self._call(node, "ObjectService/ListSegments", request, objects_pb2.ListSegmentsResponse)
        except Fault:
            return False
        self._heed_life(told)
        return self.noted is not None and self.noted.is_over(life.life, life.token)

    def _others(self) -> list[str]:
        return [node for node in self.directory.live() if node != self.key.node_id]

    def _heed_life(self, told: objects_pb2.ListSegmentsResponse) -> None:
        """What is forged or another's is left out, and what a key of before has signed: whoever took that away could
        say that the last life has begun. All that the present key can open was said in a life that it has signed."""
        owner, key = self.key.node_id, self.key.public_key
        if told.HasField("life"):
            with suppress(PeerFault):
                life = verify_life(told.life, owner, key, self.key_number, verify, self.directory.salt)
                if self.noted is None or life.is_over(self.noted.life, self.noted.token):
                    self.noted = life

    async def _look_at(self, node: str) -> None:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            await self._segments_of(node)

    async def _segments_of(self, node: str) -> None:
        request = objects_pb2.ListSegmentsRequest()
        for _ in range(PAGES_MAX):
            told = await self._call(node, "ObjectService/ListSegments", request, objects_pb2.ListSegmentsResponse)
            self._heed_life(told)
            for manifest in told.segments:
                self._add(node, manifest)
            if not told.next_page_token or told.next_page_token == request.page_token:
                return
            request.page_token = told.next_page_token
        raise PeerFault(f"{node} tells of segments without end", reason="NoEnd")

    def _add(self, node: str, manifest: objects_pb2.Manifest) -> None:
        """What is forged or another's is left out."""
        keys, salt = [self.key.public_key], self.directory.salt  # what a key of before has sealed it cannot open
        try:
            body = verify_manifest(manifest.signed, keys, verify, salt)
            head = verify_head(manifest, body, keys, verify, salt)
        except (PeerFault, DecodeError):
            return
        if head.owner == self.key.node_id and head.life <= last_life(self.key_number):
            wraps = (wrap.sealed_key for wrap in manifest.wraps if wrap.node_id == self.key.node_id)
            self.heads[head.object_id] = head
            self.found.setdefault(head.object_id, _Found(body)).hosts[node] = next(wraps, b"")

    async def fetch(self, head: SegmentHead) -> state_pb2.Segment:
        """From whichever host has it whole; who failed before is asked last. Raises Corrupt where none has: of reason
        SegmentDamaged if all have said so, and asking again is of no use."""
        found, faults, whys = self.found[head.object_id], [], []
        for node in sorted(found.hosts, key=lambda node: self._failed[node]):
            try:
                return self._opened(found, await self._read(node, found.body))
            except Fault as fault:
                self._failed[node] += 1
                faults.append(fault)
                whys.append(f"{self.called(node)}: {fault.message}")
        text = f"segment {head.number} of the journal ({head.object_id}) is not to be had: {'; '.join(whys)}"
        if not all(isinstance(fault, Corrupt | NotFound | PeerFault) for fault in faults):
            raise Corrupt(text, reason="SegmentsMissing")
        self.damaged.add(head.object_id)
        raise Corrupt(text, reason=DAMAGED)

    async def _read(self, node: str, body: Manifest) -> list[bytes]:
        """Its sealed stripes. Raises PeerFault for other bytes."""
        stripes = []
        for index in range(body.stripes):
            offset, length = row_span(body, index)
            request = objects_pb2.ReadReplicaRequest(object_id=body.object_id, offset=offset, length=length)
            told = await self._call(node, "ObjectService/ReadReplica", request, objects_pb2.ReadReplicaResponse)
            stripes.append(told.data)
        if shard_root([stripe_digest(self.directory.salt, stripe) for stripe in stripes]) != body.roots[0]:
            raise PeerFault("other bytes than the segment's", reason="WrongRoot")
        return stripes

    def _opened(self, found: _Found, stripes: Sequence[bytes]) -> state_pb2.Segment:
        """By whichever wrapped key opens it."""
        body, last = found.body, len(stripes) - 1
        for wrapped in dict.fromkeys(found.hosts.values()):
            try:
                secret = KeyWraps(self.key).unwrap(wrapped, body.object_id.encode())
                if len(secret) != OBJECT_KEY_BYTES:
                    continue
                plain = [open_stripe(secret, body.nonce, at, at == last, sealed) for at, sealed in enumerate(stripes)]
            except Fault:  # made up, or damaged: anybody can wrap some key for this node
                continue
            return unpacked(b"".join(plain))
        raise PeerFault("none of the keys that hosts have with it opens it", reason="NotForUs")

    def called(self, node: str) -> str:
        record = self.directory.member(node)
        return record.name if record is not None else node

    async def _call(self, node: str, method: str, request: Message, answer: type[M]) -> M:
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Message | Fault] = loop.create_future()
        self._road.call(node, f"offgrid.v1.{method}", request, CALL_TIMEOUT_MS, ended.set_result)
        outcome = await ended
        if isinstance(outcome, Fault):
            raise outcome
        told = as_a(answer, outcome)
        if told is None:
            raise PeerFault(f"{node} answered {method} with something else", reason="MalformedAnswer")
        return told
