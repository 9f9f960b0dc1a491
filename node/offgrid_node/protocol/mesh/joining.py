"""What a joiner and its inviter say to each other through the door, sealed with the invite's secret.

The seal (keys/sealing.py) takes a context, so that a question can never come back as its own answer and none fits
another invite.
"""

from __future__ import annotations

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.effects import Signer, Verifier
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, OutcomeUnknown, Unavailable
from offgrid_node.protocol.ids import NAME, NAME_RULE
from offgrid_node.protocol.mesh.held import CheckCertificate
from offgrid_node.protocol.mesh.records import join_proof_digest

CROWDED_MS_MAX = 1_000  # a door that says so has too many before it at once; one that says more will not have us


def is_worth_asking_again(fault: Fault) -> bool:
    """Whether the same door may have another answer soon; asking twice is safe."""
    if isinstance(fault, Exhausted):
        return fault.retry_ms is not None and fault.retry_ms <= CROWDED_MS_MAX
    return isinstance(fault, Unavailable | OutcomeUnknown)


def ask_context(invite_id: bytes) -> bytes:
    """The seal's context for a JoinAsk."""
    return b"og.join.ask.v1" + invite_id


def grant_context(invite_id: bytes) -> bytes:
    """The seal's context for a JoinGrant."""
    return b"og.join.grant.v1" + invite_id


def join_ask(mesh_tag: bytes, invite_id: bytes, name: str, certificate: bytes, key: Signer) -> mesh_pb2.JoinAsk:
    """What a joiner sends, sealed: who it wants to be and that it holds the key."""
    proof = key.sign(join_proof_digest(mesh_tag, invite_id, certificate, name))
    return mesh_pb2.JoinAsk(name=name, certificate=certificate, proof=proof)


def check_ask(
    ask: mesh_pb2.JoinAsk,
    mesh_tag: bytes,
    invite_id: bytes,
    *,
    verify: Verifier,
    check_certificate: CheckCertificate,
) -> bytes:
    """The joiner's public key, when name, certificate and proof are all in order; otherwise raises InvalidRequest."""
    if not NAME.match(ask.name):
        raise InvalidRequest.field("name", f"{ask.name[:64]!r}: {NAME_RULE}")
    public_key = check_certificate(ask.certificate)
    if not verify(public_key, join_proof_digest(mesh_tag, invite_id, ask.certificate, ask.name), ask.proof):
        raise InvalidRequest.field("proof", "not signed by the certificate's key over this invite")
    return public_key
