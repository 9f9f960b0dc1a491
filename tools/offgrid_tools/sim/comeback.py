"""How a simulated node that has lost its disk comes back: what `restoring.py` and `journal_search.py` do over gRPC, as
one flow in virtual time. What is made of heads, segments and lives, and what the new disk begins with, is their code.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import partial
from random import Random
from typing import Any

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import mesh_pb2, objects_pb2, state_pb2
from offgrid_node.keys.stripes import open_stripe
from offgrid_node.protocol.errors import Corrupt, Fault, PeerFault, Unavailable
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.exchange import full_request, merge
from offgrid_node.protocol.objects.lives import TOKEN_BYTES, Life, sign_life, verify_life
from offgrid_node.protocol.objects.manifest import Manifest, shard_root, stripe_digest, verify_manifest
from offgrid_node.protocol.objects.segments import SegmentHead, verify_head
from offgrid_node.protocol.objects.shards import row_span
from offgrid_node.protocol.state.chain import Chain, Replay, newest_chain, writes_of
from offgrid_node.protocol.state.fence import LIVES_APART, life_after
from offgrid_node.protocol.state.segment import unpacked
from offgrid_node.restoring import beginning
from offgrid_node.services.flow import Flow, Step, run, settled, together
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimSigner, SimWraps, sim_check_certificate, sim_verify
from offgrid_tools.sim.network import Network

CALL_TIMEOUT_MS = 3_000

Found = tuple[Manifest, dict[str, bytes]]
"""A segment, and who keeps it, each with the wrapped key that he has."""


class Comeback:
    """One try of the node of this key. Nobody's disk is touched; the end is the store to begin with, or a Fault."""

    def __init__(self, network: Network, signer: SimSigner, rng: Random) -> None:
        self._network, self._signer, self._rng = network, signer, rng
        self._keys = [signer.public_key]
        self._heads: dict[str, SegmentHead] = {}
        self._found: dict[str, Found] = {}
        self._life: Life | None = None  # the newest that members tell of
        self._directory: Directory

    def run(self, via: str, gone: Collection[str], done: Callable[[MemoryStore | Fault], None]) -> None:
        """Asks `via` who the members are. All have to answer but those that are `gone`: whoever restores a node knows
        which machines are no more, and waits for the others."""
        run(self._come_back(via, gone), done)

    def _come_back(self, via: str, gone: Collection[str]) -> Flow[MemoryStore]:
        yield settled(self._meet(via))
        others = [node for node in self._directory.live() if node != self._signer.node_id]
        ends = yield together([settled(self._segments_of(node)) for node in others])
        silent = [node for node, end in zip(others, ends, strict=True) if isinstance(end, Fault)]
        if waited_for := [node for node in silent if node not in gone]:
            raise Unavailable(f"{waited_for[0]} does not answer", reason="Silent")
        chain, store = newest_chain(self._heads), MemoryStore()
        yield settled(self._fill(store, chain))
        known = max(self._life.life if self._life else 1, *(head.life for head in self._heads.values()))
        number = life_after(known, self._rng.randrange(LIVES_APART) if silent else 0, 0)
        life = Life(self._signer.node_id, number, chain.newest.number, self._rng.randbytes(TOKEN_BYTES))
        yield settled(self._begin(life, others))
        store.commit(Batch(writes=dict(beginning(store, life, chain.newest, self._heads.values()))))
        return store

    def _meet(self, via: str) -> Flow[None]:
        asked = mesh_pb2.GetMemberProofRequest(node=self._signer.node_id)
        told = yield self._ask(via, "MeshService/GetMemberProof", asked)
        self._directory = Directory(told.genesis, sim_verify, sim_check_certificate)
        before = b""
        while self._directory.digest() != before:
            before, request = self._directory.digest(), full_request(self._directory)
            if not request.held:  # who holds nothing is told nothing
                request.held.add(node_id=self._signer.node_id)
            merge(self._directory, (yield self._ask(via, "MeshService/SyncMembers", request)))

    def _segments_of(self, node: str) -> Flow[None]:
        request = objects_pb2.ListSegmentsRequest()
        while True:
            told = yield self._ask(node, "ObjectService/ListSegments", request)
            if told.HasField("life"):
                owner, salt = self._signer.node_id, self._directory.salt
                life = verify_life(told.life, owner, self._signer.public_key, 0, sim_verify, salt)
                if self._life is None or life.is_over(self._life.life, self._life.token):
                    self._life = life
            for manifest in told.segments:
                self._add(node, manifest)
            if not told.next_page_token:
                return
            request = objects_pb2.ListSegmentsRequest(page_token=told.next_page_token)

    def _add(self, node: str, manifest: objects_pb2.Manifest) -> None:
        try:
            body = verify_manifest(manifest.signed, self._keys, sim_verify, self._directory.salt)
            head = verify_head(manifest, body, self._keys, sim_verify, self._directory.salt)
        except (PeerFault, DecodeError):
            return
        self._heads[head.object_id] = head
        self._found.setdefault(head.object_id, (body, {}))[1][node] = manifest.wraps[0].sealed_key

    def _fill(self, store: MemoryStore, chain: Chain) -> Flow[None]:
        replay = Replay()
        for head in chain.heads:
            segment = yield settled(self._fetch(head))
            store.commit(Batch(replay.add(segment), dict(writes_of(segment)), replay.floor))
        replay.check_end(chain.newest.events)

    def _fetch(self, head: SegmentHead) -> Flow[state_pb2.Segment]:
        body, hosts = self._found[head.object_id]
        for node, wrapped in hosts.items():
            try:
                stripes = yield settled(self._read(node, body))
            except Fault:
                continue
            secret = SimWraps(self._signer).unwrap(wrapped, body.object_id.encode())
            last = len(stripes) - 1
            plain = (open_stripe(secret, body.nonce, at, at == last, sealed) for at, sealed in enumerate(stripes))
            return unpacked(b"".join(plain))
        raise Corrupt(f"segment {head.number} is not to be had", reason="SegmentsMissing")

    def _read(self, node: str, body: Manifest) -> Flow[list[bytes]]:
        stripes = []
        for offset, length in (row_span(body, index) for index in range(body.stripes)):
            request = objects_pb2.ReadReplicaRequest(object_id=body.object_id, offset=offset, length=length)
            stripes.append(bytes((yield self._ask(node, "ObjectService/ReadReplica", request)).data))
        if shard_root([stripe_digest(self._directory.salt, stripe) for stripe in stripes]) != body.roots[0]:
            raise PeerFault("other bytes than the segment's", reason="WrongRoot")
        return stripes

    def _begin(self, life: Life, others: Collection[str]) -> Flow[None]:
        request = objects_pb2.BeginLifeRequest(life=sign_life(life, self._signer, self._directory.salt))
        ends = yield together([self._ask(node, "ObjectService/BeginLife", request) for node in others])
        if all(isinstance(end, Fault) for end in ends):
            raise Unavailable("no member could note it down", reason="LifeUntold")
        taken = [end for end in ends if isinstance(end, Fault) and end.reason == "LifeTaken"]
        if taken:
            raise taken[0]

    def _ask(self, node: str, method: str, request: Message) -> Step[Any]:
        name = f"offgrid.v1.{method}"
        return partial(self._network.call, self._signer.node_id, node, name, request, CALL_TIMEOUT_MS)
