"""Members of a mesh, as a node meets them that has lost its disk: they answer as a test says."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, objects_pb2, state_pb2
from offgrid_node.journal_search import Mesh
from offgrid_node.keys import NodeKey
from offgrid_node.keys.stripes import seal_stripe
from offgrid_node.keys.wraps import ENTROPY_BYTES, KeyWraps
from offgrid_node.protocol.objects.manifest import (
    COPY,
    MANIFEST_KIND,
    STRIPE_BYTES,
    Manifest,
    object_id_of,
    shard_root,
    stripe_digest,
)
from offgrid_node.protocol.objects.segments import SegmentHead, sign_head
from offgrid_node.protocol.signing import digest_of
from offgrid_node.protocol.state.segment import packed

SALT, SECRET, NONCE = bytes(16), b"s" * 32, b"n" * 16
KEY, BEFORE = NodeKey(b"k" * 32), NodeKey(b"b" * 32)
GENESIS = common_pb2.Signed(body=b"a mesh", signature=b"root")

Member = Callable[[Message], Message]


def wrapped(secret: bytes, use: str) -> bytes:
    """Anybody can: the node's key is known to all."""
    return KeyWraps(NodeKey(b"x" * 32)).wrap(KEY.wrapping_key(0), [(secret, use.encode())], b"e" * ENTROPY_BYTES)[0]


class Sealed:
    """A segment of the node's journal as hosts keep it, number `number` of a chain that begins with 1."""

    def __init__(self, segment: state_pb2.Segment, number: int = 1, events: int = 0, previous: str = "") -> None:
        self.plain = packed(segment)
        self.data = seal_stripe(SECRET, NONCE, 0, True, self.plain)
        self.root = shard_root([stripe_digest(SALT, self.data)])
        self.object_id = object_id_of((self.root,))
        self.head = SegmentHead(KEY.node_id, 1, number, 1, events, self.object_id, previous)

    def wrap(self) -> bytes:
        return wrapped(SECRET, self.object_id)

    def manifest(self, wrap: bytes) -> objects_pb2.Manifest:
        """The owner has signed all of it but the wrap."""
        body = Manifest(KEY.node_id, NONCE, len(self.plain), STRIPE_BYTES, 1, COPY, (self.root,), 1).encode()
        made = objects_pb2.Manifest(wraps=[objects_pb2.KeyWrap(node_id=KEY.node_id, sealed_key=wrap)])
        made.signed.body, made.signed.signature = body, KEY.sign(digest_of(MANIFEST_KIND, SALT, body))
        made.segment.CopyFrom(sign_head(self.head, KEY, SALT))
        return made


class Hosts(Mesh):
    """Use it as a Mesh that has met these members, by node."""

    def __init__(self, members: dict[str, Member]) -> None:
        self.key, self.members, self.asked = KEY, members, list[tuple[str, str]]()
        self.found, self.heads, self.noted, self.silent, self._failed = {}, {}, None, [], Counter()
        self.damaged = set()
        directory: Any = SimpleNamespace(
            key_number=lambda node: 0,
            live=lambda: [*members],
            salt=SALT,
            mesh_name="home",
            signed_genesis=GENESIS,
            member=lambda node: None,
            keys=lambda node: (KEY.public_key, BEFORE.public_key),
        )
        self._known: Any = SimpleNamespace(directory=directory)

    async def meet(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def _call(self, node: str, method: str, request: Message, answer: type[Any]) -> Any:
        self.asked.append((node, method))
        await asyncio.sleep(0)
        return self.members[node](request)
