"""Compact blocks: exactly what was signed comes back, or what is missing is said."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import common_pb2
from offgrid_node.protocol.errors import NotFound, PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, seal_block
from offgrid_node.protocol.ledger.compact import compress, near
from offgrid_node.protocol.ledger.expanding import expand
from offgrid_node.protocol.ledger.heard import Heard
from offgrid_node.protocol.ledger.items import Item, Statement, TxItem
from offgrid_node.protocol.ledger.records import GENESIS_KIND, Tx, encode_meta
from offgrid_node.protocol.ledger.replay import Replay
from offgrid_node.protocol.ledger.sources import LaneSource, NodeSource
from offgrid_node.protocol.signing import digest_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.bench.ledger_bytes import finality_at_once, finality_round, receipt_bytes
from offgrid_tools.ledgersim.keys import FEE, SALT, Key, holds, name_of, sign_tx
from offgrid_tools.ledgersim.whole.world import World

A, B = (node_id_bytes(name_of(number)) for number in (0, 1))
STRANGER = node_id_bytes(name_of(99))


class Listener:
    """A node that takes in what it hears."""

    def __init__(self, world: World) -> None:
        self.store, self.genesis = MemoryStore(), world.genesis
        body = world.genesis.encode()
        signature = Key(world.genesis.issuer).sign(digest_of(GENESIS_KIND, SALT, body))
        self.replay = Replay(self.store, common_pb2.Signed(body=body, signature=signature), SALT, Random(1))
        self._commit()

    @property
    def context(self) -> Heard:
        return Heard(self.store, self.genesis, SALT)

    def take(self, block: CheckedBlock) -> None:
        self.replay.take(block)
        self._commit()

    def _commit(self) -> None:
        self.store.commit(Batch(writes=self.replay.take_writes()))


@cache
def lived(seed: int) -> tuple[World, tuple[CheckedBlock, ...]]:
    """A world in which messages are lost and repeated, and all its blocks in the order in which one node took them."""
    world = World(seed, observers=2)
    world.open()
    world.run(5_000)
    world.loss, world.repeats = 0.1, 0.1
    owners = [*world.nodes.values()]
    for number in range(12):
        owner, payee = world.rng.sample(owners, 2)
        owner.transfer(payee.node_id, 1 + world.rng.randrange(900), f"r-{number}" if number % 2 else "")
        world.run(world.rng.randrange(400))
    owners[0].unlock()
    world.heal()
    world.run(20_000)
    node = owners[-1]
    blocks = [block for author in world.names for block in node.blocks_of(node_id_bytes(author))]
    order = {raw: place for place, (_, raw) in enumerate(node.store.scan("ledger_log"))}
    return world, tuple(sorted(blocks, key=lambda block: order[block.raw]))


# ---- what comes back


@given(st.integers(0, 7))
def test_every_block_of_a_real_chain_comes_back_as_it_was_signed(seed: int) -> None:
    world, blocks = lived(seed)
    listener = Listener(world)
    compact = whole = 0
    for block in blocks:
        data = compress(listener.context, block)
        assert expand(listener.context, data, holds) == block
        compact, whole = compact + len(data), whole + len(block.raw)
        listener.take(block)
    assert len(blocks) > 30
    assert compact < whole / 2


@given(st.integers(0, 7))
def test_a_listener_reads_what_its_author_wrote_long_after(seed: int) -> None:
    """The author holds all that came since: what it leaves out follows for the listener as well, or it says so."""
    world, blocks = lived(seed)
    listener, late = Listener(world), Heard(next(iter(world.nodes.values())).store, world.genesis, SALT)
    for block in blocks:
        with suppress(NotFound):
            assert expand(listener.context, compress(late, block), holds) == block
        listener.take(block)


@given(st.integers(0, 3), st.data())
def test_a_flipped_bit_never_makes_another_block(seed: int, data: st.DataObject) -> None:
    world, blocks = lived(seed)
    listener, at = Listener(world), data.draw(st.integers(0, len(blocks) - 1))
    for block in blocks[:at]:
        listener.take(block)
    said = bytearray(compress(listener.context, blocks[at]))
    said[data.draw(st.integers(0, len(said) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with suppress(PeerFault, NotFound):
        assert expand(listener.context, bytes(said), holds) == blocks[at]


@given(st.binary(max_size=300))
def test_no_bytes_make_it_fail_otherwise_than_by_a_fault(said: bytes) -> None:
    with pytest.raises((PeerFault, NotFound)):
        expand(Listener(lived(0)[0]).context, said, holds)


# ---- each form


def sealed(author: bytes, *items: Item, created_us: int = 5, prev: bytes | None = None, epoch: int = 0) -> CheckedBlock:
    genesis = World(1, observers=2).genesis.digest(SALT)
    name = next(name for name in (*map(name_of, range(6)), name_of(99)) if node_id_bytes(name) == author)
    return seal_block(author, 1, prev or genesis, (), items, created_us, Key(name), SALT, epoch=epoch)


@cache
def genesis_digest() -> bytes:
    return World(1, observers=2).genesis.digest(SALT)


def payment(source: NodeSource | LaneSource, seq: int = 0, prev: bytes | None = None, **fields: object) -> TxItem:
    made = {"fee_micro": FEE, "outputs": ((B, 5),), **fields}
    return sign_tx(Tx(source, seq, genesis_digest() if prev is None else prev, **made))  # type: ignore[arg-type]


OWN = payment(NodeSource(A))
FORMS: dict[str, CheckedBlock] = {
    "a payment": sealed(A, OWN),
    "and what its owner says of it": sealed(A, OWN, *(Statement(it, A, 0, 0, OWN.digest) for it in (False, True))),
    "a stranger's": sealed(STRANGER, payment(NodeSource(STRANGER), outputs=((STRANGER, 2**40),))),
    "a lane's": sealed(A, payment(LaneSource(A, 300, 2))),
    "far ahead, behind another, dear, with meta and a request": sealed(
        A,
        payment(
            NodeSource(A), 70, bytes(32), fee_micro=2**50, outputs=((B, 1), (A, 2)), meta=encode_meta({"n": "x"}),
            request=bytes(range(16)),
        ),
    ),
    "farther than its low byte can say": sealed(A, payment(NodeSource(A), 1_000_000, bytes(32))),
    "at a ballot, of what is not known": sealed(
        A, Statement(False, A, 0, 3, OWN.digest), Statement(True, B, 4, 0, bytes(32)),
    ),
    "of an epoch to come": sealed(A, OWN, Statement(True, A, 0, 0, OWN.digest), epoch=7),
    "a confirm before its vote, twice": sealed(
        A, OWN, *(Statement(it, A, 0, 0, OWN.digest) for it in (True, False, False, True, True))
    ),
    "before the genesis": sealed(A, OWN, created_us=0),
    "by the microsecond": sealed(A, OWN, created_us=1_234_567),
    "beside its chain": sealed(A, OWN, prev=bytes(32)),
}  # fmt: skip


@pytest.mark.parametrize("case", FORMS)
def test_every_form_of_block_comes_back(case: str) -> None:
    listener = Listener(World(1, observers=2))
    assert expand(listener.context, compress(listener.context, FORMS[case]), holds) == FORMS[case]


def test_its_bytes_are_fixed() -> None:
    listener = Listener(World(1, observers=2))
    block = FORMS["and what its owner says of it"]
    body = "0001010400" + OWN.signature.hex() + "1f0100020503"
    assert compress(listener.context, block).hex() == body + block.signed.signature.hex()
    listener.take(FORMS["a payment"])
    vote = sealed(B, Statement(False, A, 0, 0, OWN.digest))
    body = "0002010411" + OWN.digest[:2].hex()
    assert compress(listener.context, vote).hex() == body + vote.signed.signature.hex()


@given(st.integers(0, 2**40), st.integers(-60, 180))
def test_a_low_byte_names_the_number_about_the_expected_one(expected: int, off: int) -> None:
    number = max(0, expected + off)
    assert near(expected, number & 0xFF) == number


# ---- what is missing


def refused(said: bytes, listener: Listener) -> NotFound:
    with pytest.raises(NotFound) as raised:
        expand(listener.context, said, holds)
    return raised.value


def test_what_a_listener_lacks_is_named() -> None:
    world, blocks = lived(1)
    whole = Listener(world)
    for block in blocks:
        whole.take(block)
    none = Listener(world)
    second = next(block for block in blocks if block.header.height == 2)
    fault = refused(compress(whole.context, second), none)
    assert (fault.reason, fault.metadata) == ("BlockUnknown", {"author": second.header.author_id, "height": "1"})
    parented = next(block for block in blocks if block.header.height == 1 and block.header.parents)
    assert refused(compress(whole.context, parented), none).reason == "BlockUnknown"
    vote = sealed(B, Statement(False, A, 0, 0, OWN.digest))
    knows, knows_not = Listener(World(1, observers=2)), Listener(World(1, observers=2))
    knows.take(FORMS["a payment"])
    fault = refused(compress(knows.context, vote), knows_not)
    assert (fault.reason, fault.metadata) == ("TransactionUnknown", {"digest": OWN.digest[:2].hex()})


def test_a_slot_that_is_over_here_is_named() -> None:
    world, blocks = lived(1)
    ahead, fresh = Listener(world), Listener(world)
    for block in blocks:
        ahead.take(block)
    paid = next(block for block in blocks if isinstance(block.items[0], TxItem) and block.items[0].tx.seq == 0)
    said = compress(fresh.context, seal_block(paid.header.author, 1, world.genesis.digest(SALT), (), paid.items[:1], 5,
                                              Key(paid.header.author_id), SALT))  # fmt: skip
    fault = refused(said, ahead)
    assert (fault.reason, fault.metadata) == ("SlotUnknown", {"account": paid.header.author_id, "seq": "0"})


def test_of_transactions_that_begin_alike_the_one_that_was_meant_is_found() -> None:
    listener = Listener(World(1, observers=2))
    context, others = listener.context, list[TxItem]()
    for amount in range(1, 3_000):
        item = payment(NodeSource(A), outputs=((B, amount),))
        if item.digest[:1] == OWN.digest[:1]:
            others.append(item)
    alike = [sealed(A, item) for item in others]
    for block in alike:
        context.hear(block)
    votes = [sealed(B, Statement(False, A, 0, 0, item.digest)) for item in others]
    assert len(others) > 5
    for vote in votes:
        assert expand(context, compress(context, vote), holds) == vote


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"", "0 bytes, a signature alone has 64"),
        (b"\x05" + bytes(70), "flags 5"),
        (b"\x80" + bytes(70), "flags 128"),
        (b"\x00\x7f" + bytes(70), "account 127; the genesis names 6"),
        (b"\x00\x01\x01\x00\x07" + bytes(64), "item 7 is not known"),
        (b"\x00\x01\x01\x00\x01" + bytes(64), "of this block, which has none"),
        (b"\x00\x01\x01\x00\x09\x00" + bytes(64), "1 bytes of a digest"),
        (b"\x00\x01\x01\x00\x04\x7f" + bytes(64), "it ends at"),
        (b"\x01\x01\x01\x02" + bytes(64), "parent 2 is not known"),
        (b"\x08\x01\xff\xff\xff\xff\x7f\x01\x00" + bytes(64), "epoch 34359738367"),
        (b"\x20\x01\x01\x7f" + bytes(64), "made at -126"),
        (bytes(256 * 1024 + 1), "at most 262144 are allowed"),
        (b"\x00\x01\x01\x00" + bytes(64), "0 items"),
        (b"\x00\x01\x01\x00" + b"\x04\x00" * 4_097 + bytes(64), "more than 4096 items"),
        (b"\x00\x01\x01\x00\x00" + bytes(64) + b"\x3f\x01\x80\x80\x04\x00" + bytes(64), "lane 65536"),
    ],
)
def test_what_is_no_block_is_refused_by_what_is_wrong(said: bytes, why: str) -> None:
    with pytest.raises(PeerFault, match=why):
        expand(Listener(World(1, observers=2)).context, said, holds)


# ---- what it is for


def test_a_payment_and_its_finality_take_700_bytes_with_four_witnesses() -> None:
    in_turn, at_once = finality_round(rounds=3), finality_at_once()
    assert in_turn.bytes <= 560
    assert at_once.bytes <= 700
    assert (len(in_turn.sizes), len(at_once.sizes)) == (6, 8)
    assert in_turn.late_bytes == 0, "in turn nobody says what nobody needs"
    assert 70 <= at_once.late_bytes <= 80, "one witness' confirm comes too late to end anything"
    assert receipt_bytes() == 135
