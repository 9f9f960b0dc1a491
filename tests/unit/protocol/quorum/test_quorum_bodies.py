"""Epoch, ack and manifest: the bytes that are signed, fixed for ever, and everything else refused."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.objects.manifest import (
    COPY,
    MANIFEST_KIND,
    REED_SOLOMON,
    SEALED_SIZE_BYTES,
    SHARDS_MAX,
    STRIPE_BYTES,
    STRIPE_BYTES_MAX,
    Manifest,
)
from offgrid_node.protocol.quorum.records import (
    ACK_KIND,
    EPOCH_KIND,
    MEMBERS_MAX,
    NOBODY,
    Ack,
    Epoch,
    Member,
    sign_ack,
    sign_epoch,
    verify_ack,
    verify_epoch,
)
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.sim.crypto import SimSigner, sim_verify

SALT = bytes(range(16))
OWNER, HOST = base32(b"\x01" * 20), base32(b"\x02" * 20)
EPOCH = Epoch(OWNER, "test123", 3, b"\x03" * 32, 0x0102030405, 2_000, (Member(HOST, 1_500), Member(OWNER, 500)))
ACK = Ack(HOST, OWNER, "test123", 3, b"\x03" * 32, 0x0102030405, b"\x04" * 32)
MANIFEST = Manifest(OWNER, b"\x05" * 16, 3_000_000, STRIPE_BYTES, 1, COPY, (b"\x06" * 32,), 1_700_000_000_000_000)
CODED_EPOCH = msgspec.structs.replace(EPOCH, needed=2, layout=(0, NOBODY, 1, 0), sinces=(2, 0, 1, 0))
LATER_EPOCH = msgspec.structs.replace(EPOCH, members=(Member(HOST, 1_500, 2), Member(OWNER, 500)))
CODED = msgspec.structs.replace(
    MANIFEST,
    k=2,
    codec=REED_SOLOMON,
    roots=(b"\x06" * 32, b"\x07" * 32, b"\x08" * 32),
    expires_us=1_800_000_000_000_000,
)
PADDED = msgspec.structs.replace(MANIFEST, size_bytes=3_014_656, sealed_size=b"\x09" * SEALED_SIZE_BYTES)
GOLDEN = {
    "epoch": (
        EPOCH,
        EPOCH_KIND,
        (
            "010101010101010101010101010101010101010101000774657374313233000000030303030303030303030303030303"
            "0303030303030303030303030303030303030000000102030405000007d0020202020202020202020202020202020202"
            "020202000005dc000000000101010101010101010101010101010101010101000001f4000000000100"
        ),
        "ce0607e2b7a4e654c2d8ff968b1efa8c28bb56b6d5176014ad5a5fcf3b9e0708",
    ),
    "coded epoch": (
        CODED_EPOCH,
        EPOCH_KIND,
        (
            "010101010101010101010101010101010101010101000774657374313233000000030303030303030303030303030303"
            "0303030303030303030303030303030303030000000102030405000007d0020202020202020202020202020202020202"
            "020202000005dc000000000101010101010101010101010101010101010101000001f40000000002040000000002ff00"
            "00000001000000010000000000"
        ),
        "27877829cc4175a8a25c75c965ddc9743b836a48b36ae2ebed262f7106755a7e",
    ),
    "later epoch": (
        LATER_EPOCH,
        EPOCH_KIND,
        (
            "010101010101010101010101010101010101010101000774657374313233000000030303030303030303030303030303"
            "0303030303030303030303030303030303030000000102030405000007d0020202020202020202020202020202020202"
            "020202000005dc000000020101010101010101010101010101010101010101000001f4000000000100"
        ),
        "2379ab1b19b4cab25557906902977a751b027a0f750cca694433c45937264e67",
    ),
    "ack": (
        ACK,
        ACK_KIND,
        (
            "010202020202020202020202020202020202020202010101010101010101010101010101010101010100077465737431"
            "323300000003030303030303030303030303030303030303030303030303030303030303030300000001020304050404"
            "040404040404040404040404040404040404040404040404040404040404"
        ),
        "f0a2629996257db6a225abc0c0d1f60b561f780f5ad2a19e8d8c3e5f044d75f8",
    ),
    "manifest": (
        MANIFEST,
        MANIFEST_KIND,
        (
            "0101010101010101010101010101010101010101010505050505050505050505050505050500000000002dc6c0001000"
            "00010001060606060606060606060606060606060606060606060606060606060606060600060a24181e400000000000"
            "00000000"
        ),
        "93b84c8c375f231fe31bfe0a2b84c30e5190f975145427b2373c4815240ef242",
    ),
    "coded manifest": (
        CODED,
        MANIFEST_KIND,
        (
            "0101010101010101010101010101010101010101010505050505050505050505050505050500000000002dc6c0001000"
            "000201030606060606060606060606060606060606060606060606060606060606060606070707070707070707070707"
            "070707070707070707070707070707070707070708080808080808080808080808080808080808080808080808080808"
            "0808080800060a24181e40000006651728988000"
        ),
        "6d604204f6d89aae1d7deffb5d5783a0ec545703637f364381b18ae575c6d14e",
    ),
    "padded manifest": (
        PADDED,
        MANIFEST_KIND,
        (
            "0201010101010101010101010101010101010101010505050505050505050505050505050500000000002e0000001000"
            "00010001060606060606060606060606060606060606060606060606060606060606060600060a24181e400000000000"
            "00000000090909090909090909090909090909090909090909090909"
        ),
        "304b15f915c2d64f48140e82ed287c192b1f7b44290f6f7e92ebff55b22f945e",
    ),
}

node_ids = st.binary(min_size=20, max_size=20).map(base32)
digests = st.binary(min_size=32, max_size=32)
quorum_ids = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}\Z", fullmatch=True)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)


@st.composite
def epochs(draw: st.DrawFn) -> Epoch:
    number = draw(u32)
    coded, since = draw(st.booleans()), st.integers(0, number)
    member = st.builds(Member, node_ids, u32, st.just(0) if coded else since)
    members = draw(st.lists(member, max_size=MEMBERS_MAX, unique_by=lambda made: made.node_id).map(tuple))
    places = st.one_of(st.just(NOBODY), st.integers(0, max(0, len(members) - 1))) if members else st.just(NOBODY)
    layout = draw(st.lists(places, min_size=1, max_size=SHARDS_MAX).map(tuple)) if coded else ()
    sinces = draw(st.tuples(*[since] * len(layout)))
    needed = draw(st.integers(1, len(layout))) if layout else 1
    return Epoch(
        draw(node_ids), draw(quorum_ids), number, draw(digests), draw(u64), draw(u32), members, needed, layout, sinces
    )  # fmt: skip


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    nonce = draw(st.binary(min_size=16, max_size=16))
    roots = draw(st.lists(digests, min_size=1, max_size=SHARDS_MAX).map(tuple))
    k, codec = (1, COPY) if len(roots) == 1 else (draw(st.integers(1, len(roots) - 1)), REED_SOLOMON)
    stripe = draw(st.integers(1, STRIPE_BYTES_MAX))
    sealed_size = draw(st.sampled_from((b"", b"\x09" * SEALED_SIZE_BYTES)))
    return Manifest(draw(node_ids), nonce, draw(u64), stripe, k, codec, roots, draw(u64), draw(u64), sealed_size)


acks = st.builds(Ack, node_ids, node_ids, quorum_ids, u32, digests, u64, digests)
bodies = st.one_of(epochs(), acks, manifests())


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_vectors(name: str) -> None:
    """Never change these: every signature that was ever given stands on them."""
    made, kind, body, digest = GOLDEN[name]
    assert made.encode().hex() == body
    assert digest_of(kind, SALT, made.encode()).hex() == digest
    assert type(made).decode(bytes.fromhex(body)) == made


@given(bodies)
def test_what_is_encoded_decodes_to_the_same(made: Epoch | Ack | Manifest) -> None:
    assert type(made).decode(made.encode()) == made


@given(bodies, st.data())
def test_a_changed_body_is_refused_or_says_something_else(made: Epoch | Ack | Manifest, data: st.DataObject) -> None:
    body = bytearray(made.encode())
    body[data.draw(st.integers(0, len(body) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        other = type(made).decode(bytes(body))
    except PeerFault:
        return
    assert other != made
    assert other.encode() == bytes(body)


@given(bodies, st.data())
def test_a_cut_or_lengthened_body_is_refused(made: Epoch | Ack | Manifest, data: st.DataObject) -> None:
    body = made.encode()
    longer = body + data.draw(st.binary(min_size=1, max_size=8))
    for wrong in (body[: data.draw(st.integers(0, len(body) - 1))], longer):
        with pytest.raises(PeerFault):
            type(made).decode(wrong)


@given(st.binary(max_size=300), st.sampled_from([Epoch, Ack, Manifest]))
def test_noise_is_refused_as_the_peers_fault(noise: bytes, kind: type[Epoch | Ack | Manifest]) -> None:
    try:
        made = kind.decode(noise)
    except PeerFault:
        return
    assert made.encode() == noise


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"members": tuple(Member(base32(bytes([n]) * 20), 1) for n in range(MEMBERS_MAX + 1))}, "65 members"),
        ({"members": (Member(HOST, 1), Member(HOST, 2))}, "named twice"),
        ({"members": (Member(HOST, 1, 4),)}, "since an epoch after 3"),
        ({"needed": 1, "layout": (0,), "sinces": (4,)}, "since an epoch after 3"),
        ({"members": (Member(HOST, 1, 1),), "layout": (0,), "sinces": (0,)}, "beside those of the shards"),
        ({"quorum_id": ""}, "quorum id"),
        ({"quorum_id": "q" * 129}, "quorum id"),
        ({"quorum_id": "a/b"}, "quorum id"),
        ({"quorum_id": "a\x1b[2J"}, "quorum id"),
        ({"quorum_id": "ä"}, "quorum id"),
    ],
)
def test_an_epoch_that_breaks_a_rule_is_refused(change: dict[str, object], why: str) -> None:
    with pytest.raises(PeerFault, match=why):
        Epoch.decode(msgspec.structs.replace(EPOCH, **change).encode())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change",
    [
        {"owner": HOST},
        {"quorum_id": "test124"},
        {"epoch": 4},
        {"subject": bytes(32)},
        {"size_bytes": 1},
    ],
)
def test_an_ack_is_for_just_one_epoch(change: dict[str, object]) -> None:
    assert ACK.is_for(EPOCH)
    assert not ACK.is_for(msgspec.structs.replace(EPOCH, **change))  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"owner": HOST}, {"quorum_id": "q"}, {"subject": bytes(32)}, {"size_bytes": 1}])
def test_an_ack_counts_in_no_epoch_of_something_else(change: dict[str, object]) -> None:
    for epoch in (LATER_EPOCH, CODED_EPOCH):
        assert ACK.shards_in(epoch)
        assert ACK.shards_in(msgspec.structs.replace(epoch, **change)) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize(("number", "whole", "coded"), [(1, (), ()), (2, (0,), (0,)), (3, (0,), (0, 3)), (4, (), ())])
def test_an_ack_counts_for_what_its_node_was_to_hold_when_it_signed(
    number: int, whole: tuple[int, ...], coded: tuple[int, ...]
) -> None:
    ack = msgspec.structs.replace(ACK, epoch=number)
    assert ack.shards_in(EPOCH) == ((0,) if number == 3 else ()), "of no other epoch, where it does not say since when"
    assert ack.shards_in(LATER_EPOCH) == whole
    assert ack.shards_in(CODED_EPOCH) == coded
    stranger = msgspec.structs.replace(ack, node=base32(b"\x09" * 20))
    assert (stranger.shards_in(LATER_EPOCH), stranger.shards_in(CODED_EPOCH)) == ((), ())


def test_signatures_stand_in_one_mesh_for_one_kind_under_one_key() -> None:
    signer, other = SimSigner("a"), SimSigner("b")
    epoch, ack = sign_epoch(EPOCH, signer, SALT), sign_ack(ACK, signer, SALT)
    assert verify_epoch(epoch, [signer.public_key], sim_verify, SALT) == EPOCH
    assert verify_ack(ack, [signer.public_key], sim_verify, SALT) == ACK
    for key, salt in ((other.public_key, SALT), (signer.public_key, bytes(16)), (b"", SALT)):
        with pytest.raises(PeerFault, match="signature"):
            verify_epoch(epoch, [key], sim_verify, salt)
        with pytest.raises(PeerFault, match="signature"):
            verify_ack(ack, [key], sim_verify, salt)
    ack.signature = signer.sign(digest_of(EPOCH_KIND, SALT, ack.body))
    with pytest.raises(PeerFault, match="signature"):
        verify_ack(ack, [signer.public_key], sim_verify, SALT)
