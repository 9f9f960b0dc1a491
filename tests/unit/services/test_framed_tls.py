"""The framed carrier's TLS: who is let in, whom a client takes for whom it means, and that no forgery passes."""

from __future__ import annotations

import ssl
from collections.abc import Sequence

import pytest
from forger import KINDS, unconstrained
from tls_house import ALICE, ALICE_TLS, ALL, CORE, CORE_TLS, MALLORY, MALLORY_TLS, STRANGER_TLS

from offgrid_node.keys import NodeTls
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.services.framed_tls import PROTOCOL, Target, TrustedMembers, leaf_of
from offgrid_node.services.tls import caller_fingerprint

Met = tuple[str | None, bool]  # whom the server takes the client for, and whether the client is content


def meet(server: ssl.SSLContext, client: ssl.SSLContext, target: Target) -> Met:
    """A whole handshake in memory. A client of TLS 1.3 is content before the server has looked at its leaf."""
    wires = [ssl.MemoryBIO() for _ in range(4)]
    ends = [
        client.wrap_bio(wires[0], wires[1], server_hostname=target.name),
        server.wrap_bio(wires[2], wires[3], server_side=True),
    ]
    done = [False, False]
    for _ in range(4):
        for index, end in enumerate(ends):
            if not done[index]:
                try:
                    end.do_handshake()
                    done[index] = True
                except ssl.SSLWantReadError:
                    pass
                except ssl.SSLError:
                    return None, False
            wires[2 - 2 * index].write(wires[1 + 2 * index].read())
    shown = leaf_of(ends[1])
    who = caller_fingerprint({"transport_security_type": [b"ssl"], "x509_pem_cert": [shown]}) if shown else None
    return (who if done[1] else None), done[0] and target.is_at(ends[0])


def members(tls: NodeTls = CORE_TLS, trusted: Sequence[bytes] = ALL) -> ssl.SSLContext:
    return TrustedMembers(tls, lambda: trusted).context()


def test_members_meet_and_know_each_other() -> None:
    target = Target(ALICE_TLS, CORE_TLS.identity_der)
    assert meet(members(), target.context, target) == (ALICE.node_id, True)


def test_a_stranger_is_not_let_in_nor_one_whose_membership_ended() -> None:
    for tls in (STRANGER_TLS, ALICE_TLS):
        target = Target(tls, CORE_TLS.identity_der)
        assert meet(members(trusted=[MALLORY_TLS.identity_der]), target.context, target)[0] is None


def test_who_comes_and_goes_is_known_at_the_next_connection() -> None:
    trusted: list[bytes] = []
    server = TrustedMembers(CORE_TLS, lambda: trusted)
    target = Target(ALICE_TLS, CORE_TLS.identity_der)
    assert meet(server.context(), target.context, target)[0] is None
    trusted.append(ALICE_TLS.identity_der)
    assert meet(server.context(), target.context, target)[0] == ALICE.node_id
    assert server.context() is server.context(), "it is built anew only for a change"
    trusted.clear()
    assert meet(server.context(), target.context, target)[0] is None


def test_when_the_members_cannot_be_told_nobody_else_is_let_in(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Sequence[bytes]:
        raise RuntimeError("no list")

    target = Target(ALICE_TLS, CORE_TLS.identity_der)
    assert meet(TrustedMembers(CORE_TLS, broken).context(), target.context, target)[0] is None
    assert "the list of members cannot be read" in caplog.text


def test_a_client_means_one_node_and_no_other_member() -> None:
    target = Target(CORE_TLS, ALICE_TLS.identity_der)
    assert meet(members(ALICE_TLS), target.context, target) == (CORE.node_id, True)
    assert meet(members(MALLORY_TLS), target.context, target)[1] is False


@pytest.mark.parametrize("kind", KINDS)
def test_no_server_takes_a_forged_leaf_for_alice(kind: str) -> None:
    forged = KINDS[kind]()
    target = Target(forged, CORE_TLS.identity_der)
    assert meet(members(), target.context, target)[0] is None


@pytest.mark.parametrize("kind", KINDS)
def test_no_client_takes_a_server_with_a_forged_leaf_for_alice(kind: str) -> None:
    forged = KINDS[kind]()
    target = Target(CORE_TLS, ALICE_TLS.identity_der)
    assert meet(members(forged), target.context, target)[1] is False


def test_an_identity_without_its_constraint_is_no_root_and_no_target() -> None:
    bare = unconstrained(MALLORY)
    forged = KINDS["alice's name, and no chain"]()
    target = Target(forged, CORE_TLS.identity_der)
    assert meet(members(trusted=[bare]), target.context, target)[0] is None
    with pytest.raises(InvalidRequest, match="no name constraint"):
        Target(CORE_TLS, bare)


def test_what_was_meant_for_grpc_is_not_taken() -> None:
    target = Target(ALICE_TLS, CORE_TLS.identity_der)
    server = members()
    server.set_alpn_protocols(["h2"])
    assert meet(server, target.context, target)[1] is False, "a client asks for the protocol by name"


def test_nothing_older_than_tls_1_3_is_spoken() -> None:
    target = Target(ALICE_TLS, CORE_TLS.identity_der)
    target.context.minimum_version = ssl.TLSVersion.TLSv1_2
    target.context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert meet(members(), target.context, target) == (None, False)
    assert PROTOCOL.startswith("offgrid")
