"""JoinService: the door, where someone who is no member yet proves an invite's secret and its own key.

A stranger learns nothing: an unknown invite and a seal that does not open get the same answer. The seal's key has 128
bits, so guessing is hopeless; failures are limited all the same, and only failures, so that a neighbour who hammers at
the door cannot shut it on someone who was invited.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from google.protobuf.message import DecodeError

from offgrid.v1 import mesh_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, PermissionDenied
from offgrid_node.protocol.mesh.commands import AdmitMember
from offgrid_node.protocol.mesh.held import CheckCertificate
from offgrid_node.protocol.mesh.invites import find_invite, refused
from offgrid_node.protocol.mesh.joining import ask_context, check_ask, grant_context
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.mesh import mesh_of

FAILURES_MAX = 20
FAILURES_WINDOW_MS = 60_000
SEALED_BYTES_MAX = 8 * 1024  # a JoinAsk is a certificate, a name and a signature

Seal = Callable[[bytes, bytes, bytes], bytes]  # (secret, context, data) → data


class JoinHandlers:
    """Handlers of offgrid.v1.JoinService."""

    def __init__(
        self,
        runtime: Runtime,
        *,
        seal: Seal,
        open_sealed: Seal,
        verify: Verifier,
        check_certificate: CheckCertificate,
    ) -> None:
        """`open_sealed` raises PermissionDenied when the seal does not open."""
        self._runtime = runtime
        self._seal = seal
        self._open_sealed = open_sealed
        self._verify = verify
        self._check_certificate = check_certificate
        self._failures: deque[int] = deque(maxlen=FAILURES_MAX)  # monotonic ms

    def join(self, caller: Caller, request: mesh_pb2.JoinRequest) -> Ticket:
        """Raises PermissionDenied (reason InviteRefused) for a stranger, Exhausted when there were too many of them,
        InvalidRequest for one who holds the secret and asks badly."""
        try:
            invite = find_invite(self._runtime.store, request.invite_id)
            if invite is None or len(request.sealed) > SEALED_BYTES_MAX:
                raise refused()
            secret, invite_id = invite.secret, invite.invite_id
            ask = self._ask_in(secret, invite_id, request.sealed)
            tag = mesh_of(self._runtime).directory.genesis.mesh_tag
            public_key = check_ask(ask, tag, invite_id, verify=self._verify, check_certificate=self._check_certificate)
        except Fault as fault:
            raise self._failed(fault) from fault
        command = AdmitMember(invite_id, ask.name, public_key, ask.certificate)

        def sealed(grant: object) -> mesh_pb2.JoinResponse:
            assert isinstance(grant, mesh_pb2.JoinGrant)
            told = mesh_pb2.JoinGrant(clock_us=self._runtime.clock.now().utc_us)
            told.MergeFrom(grant)
            return mesh_pb2.JoinResponse(sealed=self._seal(secret, grant_context(invite_id), told.SerializeToString()))

        return self._runtime.ask("mesh", str(caller), command).map(sealed)

    def _ask_in(self, secret: bytes, invite_id: bytes, sealed: bytes) -> mesh_pb2.JoinAsk:
        try:
            return mesh_pb2.JoinAsk.FromString(self._open_sealed(secret, ask_context(invite_id), sealed))
        except PermissionDenied as error:
            raise refused() from error
        except DecodeError as error:
            raise InvalidRequest.field("sealed", "does not hold a JoinAsk") from error

    def _failed(self, fault: Fault) -> Fault:
        """Counts a failure; beyond the limit the answer says only when to come back."""
        now_ms = self._runtime.clock.now().mono_ms
        while self._failures and self._failures[0] <= now_ms - FAILURES_WINDOW_MS:
            self._failures.popleft()
        if len(self._failures) < FAILURES_MAX:
            self._failures.append(now_ms)
            return fault
        retry_ms = self._failures[0] + FAILURES_WINDOW_MS - now_ms
        return Exhausted(
            f"{FAILURES_MAX} joins failed within a minute; try again later", reason="TooManyJoins", retry_ms=retry_ms
        )
