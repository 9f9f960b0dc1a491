"""What is enough, and what a member signs: small rules, walked whole."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import FailedPrecondition, PeerFault
from offgrid_node.protocol.quorum.enough import byzantine_quorum, decimal, enough, weight_of
from offgrid_node.protocol.quorum.fence import ack_before
from offgrid_node.protocol.quorum.records import NOTHING, Ack, Epoch, Member, sign_ack
from offgrid_tools.sim.crypto import SimSigner

OWNER, HOST = SimSigner("owner"), SimSigner("host")
WEIGHTS = {"a": 1_000, "b": 500, "c": 0, "d": 2_500}


@pytest.mark.parametrize("count", range(5))
def test_every_set_of_signers(count: int) -> None:
    for signers in itertools.combinations("abcd", count):
        weight = sum(WEIGHTS[node] for node in signers)
        assert weight_of(signers, WEIGHTS) == weight
        for required in {0, 1, weight - 1, weight, weight + 1, 4_000}:
            assert enough(signers, WEIGHTS, required) == (weight >= required)


def test_a_node_counts_once_and_a_stranger_for_nothing() -> None:
    assert weight_of(["a", "a", "x", "a"], WEIGHTS) == 1_000
    assert not enough(["x", "y"], WEIGHTS, 1)
    assert enough([], {}, 0)


@given(st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 10_000), min_size=1), st.data())
def test_two_byzantine_quorums_share_more_than_a_third(weights: dict[str, int], data: st.DataObject) -> None:
    need = byzantine_quorum(weights)
    assert need <= sum(weights.values())
    one = data.draw(st.sets(st.sampled_from(sorted(weights))))
    two = data.draw(st.sets(st.sampled_from(sorted(weights))))
    if enough(one, weights, need) and enough(two, weights, need):
        assert 3 * weight_of(one & two, weights) > sum(weights.values())


@pytest.mark.parametrize(
    ("milli", "shown"), [(0, "0.0"), (1, "0.001"), (10, "0.01"), (500, "0.5"), (2_000, "2.0"), (100_250, "100.25")]
)
def test_weights_for_people(milli: int, shown: str) -> None:
    assert decimal(milli) == shown


def epoch(number: int, subject: bytes = NOTHING, quorum_id: str = "q") -> Epoch:
    return Epoch(OWNER.node_id, quorum_id, number, subject, 0, 1, (Member(HOST.node_id, 1),))


@pytest.mark.parametrize("held", range(1, 5))
@pytest.mark.parametrize("asked", range(1, 5))
def test_the_fence(held: int, asked: int) -> None:
    """Higher: sign anew. The same: the same ack. Lower: never."""
    ack = sign_ack(Ack(HOST.node_id, OWNER.node_id, "q", held, NOTHING, 0, NOTHING), HOST, b"")
    assert ack_before(None, epoch(asked)) is None
    if asked > held:
        assert ack_before(ack, epoch(asked)) is None
    elif asked == held:
        assert ack_before(ack, epoch(asked)) is ack
        with pytest.raises(PeerFault) as forked:
            ack_before(ack, epoch(asked, subject=b"x" * 32))
        assert forked.value.reason == "EpochForked"
    else:
        with pytest.raises(FailedPrecondition) as over:
            ack_before(ack, epoch(asked))
        assert over.value.reason == "EpochOver"
        assert over.value.metadata == {"quorum_id": "q", "epoch": str(held)}
