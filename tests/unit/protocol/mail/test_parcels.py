"""A parcel's head: one form, signed, and bound to what is sealed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mail_post import ALICE, BOB, SALT, parcel
from msgspec.structs import replace

from offgrid.v1 import mail_pb2
from offgrid_node.keys import verify
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.mail.parcels import SEALED_BYTES_MAX, ParcelHead, read_parcel, verify_parcel

HEAD, MADE = parcel(BOB, ALICE, 5, floor=3)
HEAD_BYTES = 85


def test_it_is_read_as_it_was_made() -> None:
    assert verify_parcel(MADE, [BOB.public_key], verify, SALT) == HEAD
    assert ParcelHead.decode(HEAD.encode()) == HEAD
    assert len(HEAD.encode()) == HEAD_BYTES


@pytest.mark.parametrize("keys", [[], [ALICE.public_key]])
def test_only_its_source_can_have_signed_it(keys: list[bytes]) -> None:
    with pytest.raises(PeerFault, match="signature"):
        verify_parcel(MADE, keys, verify, SALT)


def test_another_mesh_has_other_signatures() -> None:
    with pytest.raises(PeerFault, match="signature"):
        verify_parcel(MADE, [BOB.public_key], verify, bytes(16))


@pytest.mark.parametrize("sealed", [b"", b"sealeD", b"sealed!"])
def test_what_is_sealed_cannot_be_changed(sealed: bytes) -> None:
    with pytest.raises(PeerFault, match="altered"):
        read_parcel(mail_pb2.Parcel(head=MADE.head, sealed=sealed))


def test_it_is_bounded() -> None:
    _, large = parcel(BOB, ALICE, 5, sealed=bytes(SEALED_BYTES_MAX + 1))
    with pytest.raises(PeerFault, match="sealed bytes"):
        read_parcel(large)


@pytest.mark.parametrize("wrong", [{"floor": 6}, {"floor": 0}])
def test_a_floor_is_neither_nothing_nor_above_the_number(wrong: dict[str, int]) -> None:
    with pytest.raises(PeerFault, match="floor"):
        ParcelHead.decode(replace(HEAD, **wrong).encode())


@given(st.binary(max_size=200) | st.binary(min_size=HEAD_BYTES, max_size=HEAD_BYTES))
def test_any_bytes_are_a_head_of_one_form_or_refused(body: bytes) -> None:
    try:
        head = ParcelHead.decode(body)
    except PeerFault:
        return
    assert head.encode() == body
