"""What a member notes of another's lives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Put
from offgrid_node.protocol.errors import FailedPrecondition, PeerFault
from offgrid_node.protocol.mesh.keychange import CHANGES_MAX
from offgrid_node.protocol.objects.lives import (
    KEY_LIVES_MIN,
    LIFE_MAX,
    BeginLife,
    Life,
    last_life,
    lives_of,
    note_life,
    sign_life,
    verify_life,
)
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimSigner, sim_verify

SIGNER, SALT = SimSigner("owner"), bytes(16)
LIFE = Life(SIGNER.node_id, 5, 77, b"t" * 16)


class Member:
    def __init__(self) -> None:
        self.rows = MemoryStore()

    def note(self, life: Life) -> None:
        draft = Draft()
        draft.load(self.rows)
        note_life(draft, BeginLife(sign_life(life, SIGNER, SALT), life))
        for effect in draft.take():
            assert isinstance(effect, Put)
            self.rows.commit(Batch(writes={(effect.table, effect.key): effect.value}))


@given(st.integers(2, LIFE_MAX), st.integers(0, 2**64 - 1), st.binary(min_size=16, max_size=16))
def test_a_life_is_read_as_it_was_written(life: int, number: int, token: bytes) -> None:
    made = Life(SIGNER.node_id, life, number, token)
    assert Life.decode(made.encode()) == made


@given(st.binary(max_size=60))
def test_what_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(PeerFault):
        Life.decode(body)


@pytest.mark.parametrize("life", [0, 1, LIFE_MAX + 1])
def test_the_first_life_is_not_begun_and_there_is_a_last_one(life: int) -> None:
    with pytest.raises(PeerFault, match=f"2 to {LIFE_MAX} are allowed"):
        Life.decode(replace(LIFE, life=life).encode())


def test_it_is_its_owners_alone() -> None:
    owner, key = SIGNER.node_id, SIGNER.public_key
    assert verify_life(sign_life(LIFE, SIGNER, SALT), owner, key, 0, sim_verify, SALT) == LIFE
    stranger = SimSigner("stranger")
    with pytest.raises(PeerFault, match="the signature is not"):
        verify_life(sign_life(LIFE, stranger, SALT), owner, key, 0, sim_verify, SALT)
    with pytest.raises(PeerFault, match="the signature is not"):
        verify_life(sign_life(LIFE, SIGNER, b"other" * 3 + b"!"), owner, key, 0, sim_verify, SALT)
    with pytest.raises(PeerFault, match="not of"):
        verify_life(sign_life(LIFE, SIGNER, SALT), stranger.node_id, key, 0, sim_verify, SALT)


def test_whoever_has_a_key_leaves_lives_to_the_next() -> None:
    owner, key = SIGNER.node_id, SIGNER.public_key
    for number in range(CHANGES_MAX):
        last = sign_life(replace(LIFE, life=last_life(number)), SIGNER, SALT)
        assert verify_life(last, owner, key, number, sim_verify, SALT).life < last_life(number + 1) <= LIFE_MAX
        beyond = sign_life(replace(LIFE, life=last_life(number) + 1), SIGNER, SALT)
        with pytest.raises(PeerFault, match="its present key begins"):
            verify_life(beyond, owner, key, number, sim_verify, SALT)
    assert all(lives_of(number) >= KEY_LIVES_MIN > 500 for number in range(CHANGES_MAX + 1))
    with pytest.raises(PeerFault, match="the signature is not"):
        verify_life(sign_life(LIFE, SIGNER, SALT), owner, None, 0, sim_verify, SALT)


def test_of_two_the_later_one_counts_and_of_two_alike_the_first() -> None:
    member = Member()
    member.note(LIFE)
    member.note(LIFE)
    member.note(replace(LIFE, life=9, token=b"u" * 16))
    for late in (LIFE, replace(LIFE, life=9, token=b"v" * 16), replace(LIFE, life=8)):
        with pytest.raises(FailedPrecondition, match=r"life 9 of .* has begun elsewhere") as refused:
            member.note(late)
        assert refused.value.reason == "LifeTaken"
        assert refused.value.metadata == {"life": "9"}
