"""How records reach everyone: changes are pushed at once, differing digests lead to a full exchange.

A push goes to a few members that pass it on when it was news to them; what gets lost, the next ping or beacon notices.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Call, Effect
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.exchange import full_request, merge, push_request
from offgrid_node.protocol.pace import Paces, all_free
from offgrid_node.protocol.rng import Rng

SYNC_MEMBERS = "offgrid.v1.MeshService/SyncMembers"
SYNC_TIMEOUT_MS = 2_000
SYNCS_MAX = 2  # full exchanges under way
SYNC_BYTES = 1_000  # of one that brings a little
SYNC_SHARE = 200  # of a slow road's time one part is for exchanges with one that stays different
PUSH_FANOUT = 8
PUSH_NODES_MAX = 64  # more than that is left to full exchanges
FAREWELL_TRIES = 10  # intervals for which a removed member is told so
FAREWELLS_MAX = 64
SETTLE_PAUSE_MS = 10_000  # between two pushes of everything


class PushTag(msgspec.Struct, frozen=True):
    """Records pushed; nothing depends on the answer."""


class RootTag(msgspec.Struct, frozen=True):
    """What is known of the root's keys, told to a member who knows something else of them."""


class FarewellTag(msgspec.Struct, frozen=True):
    """A tombstone pushed to the member that it ends."""


class SyncTag(msgspec.Struct, frozen=True):
    """A full exchange, and both sides' digests when it began."""

    theirs: bytes
    ours: bytes


class Spreader:
    """Decides whom to call with SyncMembers, and merges the answers into the directory."""

    def __init__(self, directory: Directory, self_id: str, paces: Paces = all_free) -> None:
        self._directory = directory
        self._self_id = self_id
        self._paces = paces
        self._syncing: dict[str, int] = {}  # node → monotonic ms by which its exchange is over
        self._in_vain: dict[str, int] = {}  # node behind a slow road → when it is worth another exchange
        self._farewells: dict[str, int] = {}  # removed node → tries left
        self._leaving: set[str] = set()  # who is being told so
        self._settle_after_ms = 0
        # member → digests of what it and this node knew of the root when this one told it, and when it told this one
        self._root_told: dict[str, tuple[bytes, bytes]] = {}
        self._root_heard: dict[str, tuple[bytes, bytes]] = {}

    def digest_seen(self, node_id: str, digest: bytes, now: Now) -> list[Effect]:
        """A member holds records whose digest begins so; a slow one is not asked over and over where that helps not."""
        ours = self._directory.digest()
        self._syncing = {node: due_ms for node, due_ms in self._syncing.items() if due_ms > now.mono_ms}
        if not digest or ours.startswith(digest):
            self._in_vain.pop(node_id, None)
            return []
        early = now.mono_ms < self._in_vain.get(node_id, now.mono_ms)
        if early or node_id in self._syncing or len(self._syncing) >= SYNCS_MAX:
            return []
        pace = self._paces(node_id)
        self._syncing[node_id] = now.mono_ms + 2 * (SYNC_TIMEOUT_MS + pace.longer_ms(SYNC_BYTES))
        if not pace.free:
            self._in_vain[node_id] = now.mono_ms + pace.apart_ms(SYNC_BYTES, SYNC_SHARE)
        heard, ours_of_root = self._root_heard.get(node_id), self._directory.root_digest()
        request = full_request(self._directory)
        if heard is not None and heard[1] == ours_of_root:
            request.root_digest = heard[0]  # told again, it would bring nothing
        return [self._call(node_id, request, SyncTag(digest, ours))]

    def push(self, changed: Sequence[str], alive: Sequence[str], sources: set[str], rng: Rng) -> list[Effect]:
        """Tells a few of the members that are alive, those apart that it came from."""
        others = [node_id for node_id in alive if node_id not in sources or len(sources) > 1]
        if not changed or not others or len(changed) > PUSH_NODES_MAX:
            return []
        request = push_request(self._directory, changed)
        return [self._call(node, request, PushTag()) for node in rng.sample(others, min(PUSH_FANOUT, len(others)))]

    def removed(self, node_id: str) -> list[Effect]:
        """This node has removed a member, which is to hear of it while it may still be reached."""
        if len(self._farewells) < FAREWELLS_MAX:
            self._farewells[node_id] = FAREWELL_TRIES
        return self._farewell(node_id)

    def tick(self) -> list[Effect]:
        """Repeats what removed members have not confirmed."""
        effects: list[Effect] = []
        for node_id in [node_id for node_id in self._farewells if node_id not in self._leaving]:
            self._farewells[node_id] -= 1
            if not self._farewells[node_id]:
                del self._farewells[node_id]
            effects += self._farewell(node_id)
        return effects

    def answered(self, answer: Answered, now: Now) -> list[Effect]:
        """The end of a SyncMembers of ours; a record that is refused keeps nothing else back."""
        reply = answer.reply if isinstance(answer.reply, mesh_pb2.SyncMembersResponse) else None
        if isinstance(answer.tag, SyncTag):
            self._syncing.pop(answer.node, None)
        if isinstance(answer.tag, FarewellTag):
            self._leaving.discard(answer.node)
            if reply is not None:
                self._farewells.pop(answer.node, None)
        if isinstance(answer.tag, RootTag) and reply is None:
            self._root_told.pop(answer.node, None)
        if reply is None or not self._directory.is_member(answer.node):
            return []
        before = self._directory.revision
        refusal = merge(self._directory, reply)
        if refusal is not None:
            self._directory.notice(f"{answer.node} sent a record that was refused: {refusal.message}")
        wanted = [node_id for node_id in reply.wanted if self._directory.member(node_id)]
        if self._tells_root(answer, reply.root_digest):
            return [self._call(answer.node, push_request(self._directory, wanted, root=True), RootTag())]
        if reply.wanted:
            return [self._call(answer.node, push_request(self._directory, wanted), PushTag())]
        if isinstance(answer.tag, SyncTag) and self._directory.revision == before:
            return self._settle(answer.node, answer.tag, now)
        return []

    def _tells_root(self, answer: Answered, theirs: bytes) -> bool:
        """Once for what both know: where the root's key is in two hands, members may know different things for good."""
        node_id, pair = answer.node, (theirs, self._directory.root_digest())
        if theirs == pair[1]:
            self._root_told.pop(node_id, None)
            self._root_heard.pop(node_id, None)
            return False
        if isinstance(answer.tag, SyncTag):
            self._root_heard[node_id] = pair
        if isinstance(answer.tag, RootTag) or self._root_told.get(node_id) == pair:
            return False
        self._root_told[node_id] = pair
        return True

    def _settle(self, node_id: str, tag: SyncTag, now: Now) -> list[Effect]:
        """Versions agree and digests do not: two records of one version are about. Show all of ours."""
        if tag.ours != self._directory.digest() or now.mono_ms < self._settle_after_ms:
            return []
        self._settle_after_ms = now.mono_ms + SETTLE_PAUSE_MS
        ids = self._directory.all_ids()
        start = now.mono_ms // SETTLE_PAUSE_MS % len(ids)  # another part every time, should they not fit at once
        return [self._call(node_id, push_request(self._directory, ids[start:] + ids[:start]), PushTag())]

    def _farewell(self, node_id: str) -> list[Effect]:
        self._leaving.add(node_id)
        return [self._call(node_id, push_request(self._directory, [self._self_id, node_id], root=True), FarewellTag())]

    def _call(self, node_id: str, request: mesh_pb2.SyncMembersRequest, tag: object) -> Call:
        return Call("mesh", node_id, SYNC_MEMBERS, request, tag, SYNC_TIMEOUT_MS)
