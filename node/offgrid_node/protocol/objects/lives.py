"""The lives of a node: one begins whenever it comes back without its last rows, and others know the newest one.

A node that begins a life tells the other members before it says anything in it; they note it down, durably, and show it
with what they keep of its journal. So the next life is above each that anybody who answers has heard of, and of two
that begin at once a member takes but one: the greater one, or of two alike the first. Whoever still runs in an older
life finds out by the next member that it asks, and stops.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import common_pb2
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import FailedPrecondition, PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32, node_id_bytes
from offgrid_node.protocol.mesh.keychange import CHANGES_MAX
from offgrid_node.protocol.objects.tables import LIVES
from offgrid_node.protocol.signing import BodyReader, BodyWriter, check_version, decode_body, digest_of, signed_by

LIFE_KIND = b"og.life.v1"
VERSION = 1
TOKEN_BYTES = 16
LIFE_MAX = (1 << 16) - 1  # a life has 65,536 epochs of each quorum, and an epoch's number 32 bits (succession.py)
KEY_LIVES_MIN = ((LIFE_MAX + 1) // 2) // (CHANGES_MAX + 1)  # 504, so that no key of a node is without
HALVED = LIFE_MAX // 2  # what the keys share besides


def last_life(number: int) -> int:
    """The last life that a key may say that `number` others went before: KEY_LIVES_MIN each, and of the other half of
    all lives half of what these left. So whoever takes a key away cannot use up all lives, and each key that follows
    has lives behind all that he says."""
    return (number + 1) * KEY_LIVES_MIN + HALVED - (HALVED >> (number + 1))


def lives_of(number: int) -> int:
    """How many lives are that key's own."""
    return last_life(number) - (last_life(number - 1) if number else 0)


class Life(msgspec.Struct, frozen=True):
    """It goes on behind segment `number` of the journal. `token` tells it from another that began at once."""

    owner: str
    life: int
    number: int
    token: bytes

    def encode(self) -> bytes:
        writer = BodyWriter().uint(VERSION, 1).fixed(node_id_bytes(self.owner), NODE_ID_BYTES)
        return writer.uint(self.life, 8).uint(self.number, 8).fixed(self.token, TOKEN_BYTES).done()

    @classmethod
    def decode(cls, body: bytes) -> Life:
        """Raises PeerFault for anything that `encode` would not have written."""
        return decode_body("life", body, cls._read, cls.encode)

    @classmethod
    def _read(cls, reader: BodyReader) -> Life:
        check_version(reader.uint(1), VERSION)
        owner, life, number = base32(reader.fixed(NODE_ID_BYTES)), reader.uint(8), reader.uint(8)
        if not 1 < life <= LIFE_MAX:
            raise ValueError(f"life {life}; 2 to {LIFE_MAX} are allowed")
        return cls(owner, life, number, reader.fixed(TOKEN_BYTES))

    def is_over(self, life: int, token: bytes) -> bool:
        """Whether the owner has begun this one after that other, or beside it."""
        return self.life > life or (self.life == life and self.token != token)


def sign_life(life: Life, signer: Signer, salt: bytes) -> common_pb2.Signed:
    body = life.encode()
    return common_pb2.Signed(body=body, signature=signer.sign(digest_of(LIFE_KIND, salt, body)))


def verify_life(
    signed: common_pb2.Signed, owner: str, key: bytes | None, number: int, verify: Verifier, salt: bytes
) -> Life:
    """Raises PeerFault unless it is the owner's, signed with its present key, that `number` others went before."""
    life = Life.decode(signed.body)
    if life.owner != owner:
        raise PeerFault(f"life {life.life} is of {life.owner}, not of {owner}", reason="WrongOwner")
    if life.life > last_life(number):
        text = f"life {life.life} of {owner}; its present key begins {last_life(number)} at most"
        raise PeerFault(text, reason="WrongLife")
    if not signed_by([key] if key else [], digest_of(LIFE_KIND, salt, signed.body), signed.signature, verify):
        raise PeerFault(f"life {life.life}: the signature is not {owner}'s", reason="BadSignature")
    return life


class BeginLife(msgspec.Struct, frozen=True):
    """From another member, who signed it. Answered with BeginLifeResponse, a repeated one again. `void`: the signature
    of the life noted before, where a key of before made it; it counts for nothing then."""

    signed: common_pb2.Signed
    life: Life
    void: bytes = b""


def note_life(draft: Draft, command: BeginLife) -> None:
    """Raises FailedPrecondition (LifeTaken) where another one is known that is not older."""
    life, key = command.life, command.life.owner.encode()
    held = draft.row(LIVES, key, common_pb2.Signed)
    stands = held is not None and held.signature != command.void
    if held is not None and stands and (known := Life.decode(held.body)).is_over(life.life, life.token):
        text = (
            f"life {known.life} of {life.owner} has begun elsewhere: another restore of this node came first; "
            "made again, this one takes its place"
        )
        raise FailedPrecondition(text, reason="LifeTaken", metadata={"life": str(known.life)})
    draft.put(LIVES, key, command.signed)
