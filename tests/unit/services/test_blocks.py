"""What of a peer's blocks reaches the ledger: only what is signed by whom it says; a bad one stops no good one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pytest
from msgspec.structs import replace

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import BLOCK_SIGNATURES_MAX, CheckedBlock, seal_block
from offgrid_node.protocol.ledger.commands import (
    PUSH_BLOCKS_MAX,
    PUSH_BYTES_MAX,
    PUSH_SIGNATURES_MAX,
    WANTED_MAX,
)
from offgrid_node.protocol.ledger.items import Item, SignedHeader, Statement, TxItem
from offgrid_node.protocol.ledger.records import GENESIS_KIND, LedgerGenesis, Tx
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.mesh.records import signed
from offgrid_node.services.bulk import Bulk, Carry, Ended, inline
from offgrid_node.services.flow import run
from offgrid_node.services.ledger.blocks import AT_ONCE_MAX, CALLS_MAX, BlockChecks, Sifted

SALT = bytes(range(16))
ATTIC, BARN, STRANGER = (NodeKey(letter * 32) for letter in (b"a", b"b", b"s"))
VOTE = Statement(False, bytes(20), 0, 0, bytes(32))


@dataclass
class Members:
    """Two members, the first an admin."""

    known: dict[str, bytes] = field(default_factory=lambda: {k.node_id: k.public_key for k in (ATTIC, BARN)})
    salt: bytes = SALT

    def keys(self, node_id: str) -> list[bytes]:
        return [self.known[node_id]] if node_id in self.known else []

    def key_at(
        self, node_id: str, *, height: int | None = None, seq: int | None = None, number: int | None = None
    ) -> bytes | None:
        assert [height, seq, number].count(None) == 2, "each claim says which of its signer's keys it is by"
        return self.known.get(node_id)

    def is_admin(self, node_id: str) -> bool:
        return node_id == ATTIC.node_id


class Watched:
    """The real verifier, counted."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, public_key: bytes, digest: bytes, signature: bytes) -> bool:
        self.calls += 1
        return verify(public_key, digest, signature)


def account(key: NodeKey) -> bytes:
    return node_id_bytes(key.node_id)


def block(author: NodeKey, *items: Item, height: int = 1, signer: NodeKey | None = None) -> CheckedBlock:
    return seal_block(account(author), height, bytes(32), (), items or (VOTE,), 5, signer or author, SALT)


def message(checked: CheckedBlock) -> ledger_pb2.Block:
    return ledger_pb2.Block.FromString(checked.raw)


def tx_item(owner: NodeKey, signer: NodeKey | None = None, seq: int = 0) -> TxItem:
    tx = Tx(NodeSource(account(owner)), seq, bytes(32), 1_000, ((account(BARN), 5),))
    digest = tx.digest(SALT)
    return TxItem(tx, tx.encode(), (signer or owner).sign(digest), digest)


class Asked:
    """The checks of one node, whose ledger has use for whatever `of_use` says; threads are played."""

    def __init__(
        self,
        verifier: Verifier = verify,
        members: Members | None = None,
        of_use: Callable[[SignedHeader], bool] = lambda signed: True,
        carry: Carry = inline,
    ) -> None:
        known = members or Members()
        self.checks = BlockChecks(lambda: known, verifier, Bulk(carry))
        self._of_use = of_use

    def begin(self, sender: str, blocks: Sequence[ledger_pb2.Block]) -> list[tuple[CheckedBlock, ...] | Fault]:
        """What it comes to, once it has; `useless` is what was of no use in the last call that has."""
        ends: list[tuple[CheckedBlock, ...] | Fault] = []

        def end(outcome: Sifted | Fault) -> None:
            self.useless = outcome.useless if isinstance(outcome, Sifted) else ()
            ends.append(outcome.blocks if isinstance(outcome, Sifted) else outcome)

        run(self.checks.blocks(sender, blocks, lambda headers: [self._of_use(one) for one in headers]), end)
        return ends

    def blocks(self, sender: str, blocks: Sequence[ledger_pb2.Block]) -> tuple[CheckedBlock, ...]:
        (end,) = self.begin(sender, blocks)
        if isinstance(end, Fault):
            raise end
        return end


def checks() -> BlockChecks:
    return Asked().checks


def test_good_blocks_come_out_as_they_were_signed_and_in_their_order() -> None:
    sent = [block(ATTIC, tx_item(BARN)), block(BARN, height=2)]
    assert list(Asked().blocks("x", [message(one) for one in sent])) == sent


def forged() -> ledger_pb2.Block:
    return message(block(ATTIC, signer=BARN))


def other_items() -> ledger_pb2.Block:
    bad = message(block(ATTIC))
    bad.items[0] = replace(VOTE, seq=9).encode()
    return bad


def foreign_tx() -> ledger_pb2.Block:
    return message(block(ATTIC, tx_item(BARN, signer=ATTIC)))


def no_items() -> ledger_pb2.Block:
    bad = message(block(ATTIC))
    del bad.items[:]
    return bad


BAD = {
    "BadSignature": forged, "WrongItems": other_items, "BlockTooLarge": no_items,
    "MalformedBody": ledger_pb2.Block,
}  # fmt: skip


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_block_is_refused_with_its_reason_and_stops_no_good_one(reason: str) -> None:
    with pytest.raises(PeerFault, match="from x: ") as refused:
        Asked().blocks("x", [BAD[reason]()])
    assert refused.value.reason == reason
    good = block(BARN)
    assert Asked().blocks("x", [BAD[reason](), message(good), BAD[reason]()]) == (good,)


def test_a_transaction_that_its_owner_has_not_signed_spoils_its_block() -> None:
    with pytest.raises(PeerFault, match=f"an item is not signed by {BARN.node_id}"):
        Asked().blocks("x", [foreign_tx()])


def test_whose_signer_is_not_known_yet_is_left_out_without_blame() -> None:
    by_stranger, good = block(STRANGER), block(BARN)
    about_stranger = block(ATTIC, tx_item(STRANGER))
    sent = [message(one) for one in (by_stranger, about_stranger, good)]
    members = Members()
    asked = Asked(members=members)
    assert asked.blocks("x", sent[:2]) == ()
    assert asked.blocks("x", sent) == (good,)
    members.known[STRANGER.node_id] = STRANGER.public_key
    assert asked.blocks("x", sent) == (by_stranger, about_stranger, good), "once it is a member they count"


def test_signed_for_another_mesh_it_is_nothing_here() -> None:
    elsewhere = seal_block(account(ATTIC), 1, bytes(32), (), (VOTE,), 5, ATTIC, bytes(16))
    with pytest.raises(PeerFault):
        Asked().blocks("x", [message(elsewhere)])


def test_a_block_that_many_peers_push_is_checked_once() -> None:
    verifier = Watched()
    asked = Asked(verifier)
    sent = message(block(ATTIC, tx_item(BARN)))
    for _ in range(5):
        asked.blocks("x", [sent])
    assert verifier.calls == 2, "the header's signature and the transaction's"
    altered = ledger_pb2.Block.FromString(sent.SerializeToString())
    altered.header.signature = bytes(64)
    with pytest.raises(PeerFault):
        asked.blocks("x", [altered])


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (message(block(ATTIC, height=height)) for height in (1, 2))
    monkeypatch.setattr("offgrid_node.services.ledger.blocks.REMEMBERED_BYTES_MAX", first.ByteSize())
    verifier = Watched()
    asked = Asked(verifier)
    for sent in (first, first, second, second, first):
        asked.blocks("x", [sent])
    assert verifier.calls == 3, "the newest alone is kept"


def test_what_nobody_has_signed_is_not_passed_on() -> None:
    good = block(ATTIC)
    padded = ledger_pb2.Block.FromString(good.raw + b"\xfa\x3f\x03pad")
    assert len(padded.SerializeToString()) > len(good.raw)
    assert Asked().blocks("x", [padded]) == (good,)


def test_calls_are_bounded_in_blocks_and_bytes() -> None:
    with pytest.raises(InvalidRequest, match=f"at most {PUSH_BLOCKS_MAX}"):
        Asked().blocks("x", [ledger_pb2.Block()] * (PUSH_BLOCKS_MAX + 1))
    fat = ledger_pb2.Block(items=[bytes(PUSH_BYTES_MAX)])
    with pytest.raises(InvalidRequest, match=f"at most {PUSH_BYTES_MAX}"):
        Asked().blocks("x", [fat])


def test_a_call_with_more_signatures_than_are_allowed_costs_none() -> None:
    verifier, tx = Watched(), tx_item(BARN)
    full = message(block(ATTIC, *[tx] * (BLOCK_SIGNATURES_MAX - 1)))
    calls = PUSH_SIGNATURES_MAX // BLOCK_SIGNATURES_MAX
    with pytest.raises(InvalidRequest, match=f"at most {PUSH_SIGNATURES_MAX}"):
        Asked(verifier).blocks("x", [*[full] * calls, message(block(BARN))])
    assert verifier.calls == 0


def large(author: NodeKey, *, height: int = 1) -> CheckedBlock:
    """With one signature more than are checked at once."""
    return block(author, *(tx_item(BARN) for _ in range(AT_ONCE_MAX)), height=height)


class Later:
    """Threads that work when they are told to."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Callable[[], object], Ended]] = deque()

    def __call__(self, work: Callable[[], object], ended: Ended) -> None:
        self._waiting.append((work, ended))

    def go(self) -> None:
        while self._waiting:
            work, ended = self._waiting.popleft()
            ended(work())


def test_signatures_are_checked_away_from_the_loop_and_a_peers_calls_one_after_the_other() -> None:
    verifier, later = Watched(), Later()
    asked, first, second, small = Asked(verifier, carry=later), large(ATTIC), large(BARN), block(BARN)
    ends = [asked.begin("x", [message(one)]) for one in (first, second, small)]
    assert (verifier.calls, ends) == (0, [[], [], []]), "a small one waits behind a large one"
    later.go()
    assert ends == [[(first,)], [(second,)], [(small,)]]


def test_a_few_signatures_are_checked_at_once() -> None:
    later = Later()
    asked = Asked(carry=later)
    few = block(ATTIC, *(tx_item(BARN) for _ in range(AT_ONCE_MAX - 1)))
    assert asked.begin("x", [message(few)]) == [(few,)]
    assert asked.begin("x", [message(large(ATTIC))]) == []


def test_a_peer_has_a_bounded_number_of_calls_under_way_and_keeps_no_other_waiting() -> None:
    later = Later()
    asked = Asked(carry=later)
    sent = [message(large(ATTIC, height=1 + number)) for number in range(CALLS_MAX + 1)]
    under_way = [asked.begin("x", [one]) for one in sent[:-1]]
    (refused,) = asked.begin("x", sent[-1:])
    assert isinstance(refused, Exhausted)
    assert refused.reason == "TooManyPushes"
    other = asked.begin("y", sent[-1:])
    later.go()
    assert all(isinstance(end, tuple) for (end,) in (*under_way, other))
    assert asked.blocks("x", sent[-1:]) == (large(ATTIC, height=CALLS_MAX + 1),), "what has ended makes room"


def test_what_is_of_no_use_costs_no_signature() -> None:
    verifier = Watched()
    held, new = block(ATTIC), block(ATTIC, height=2)
    asked = Asked(verifier, of_use=lambda signed: signed.digest != held.digest)
    assert asked.blocks("x", [message(held), message(new)]) == (new,)
    assert asked.useless == ((account(ATTIC), 1),)
    assert verifier.calls == 1
    assert asked.blocks("x", [message(block(STRANGER, tx_item(BARN)))]) == ()
    assert verifier.calls == 1, "nor does a block of nobody"


def test_wishes_are_bounded_and_well_formed() -> None:
    assert checks().wanted([b"w" * 32]) == (b"w" * 32,)
    with pytest.raises(InvalidRequest, match="at most"):
        checks().wanted([b""] * (WANTED_MAX + 1))
    with pytest.raises(InvalidRequest, match=r"wanted\[0\]"):
        checks().wanted([b"short"])


class TestTheGenesis:
    BODY = LedgerGenesis(ATTIC.node_id, ((ATTIC.node_id, 1_000),), ((BARN.node_id, 5),), 1_000, 77)

    def test_of_an_admin_is_taken(self) -> None:
        assert checks().genesis(signed(GENESIS_KIND, SALT, self.BODY.encode(), ATTIC)) == self.BODY

    @pytest.mark.parametrize("issuer", [BARN, STRANGER])
    def test_of_anybody_else_is_not(self, issuer: NodeKey) -> None:
        body = replace(self.BODY, issuer=issuer.node_id)
        with pytest.raises(PeerFault) as refused:
            checks().genesis(signed(GENESIS_KIND, SALT, body.encode(), issuer))
        assert refused.value.reason == "NotAnAdmin"

    def test_in_an_admins_name_is_not(self) -> None:
        for message in (
            signed(GENESIS_KIND, SALT, self.BODY.encode(), BARN),
            signed(GENESIS_KIND, bytes(16), self.BODY.encode(), ATTIC),
            common_pb2.Signed(body=self.BODY.encode()),
        ):
            with pytest.raises(PeerFault) as refused:
                checks().genesis(message)
            assert refused.value.reason == "BadSignature"
