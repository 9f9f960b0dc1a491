"""Blocks from outside: whatever comes out of `check_block` was signed by whom it says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import (
    BLOCK_ITEMS_MAX,
    BLOCK_SIGNATURES_MAX,
    CheckedBlock,
    check_block,
    seal_block,
)
from offgrid_node.protocol.ledger.items import Claim, Item, Seen, Statement, TxItem
from offgrid_node.protocol.ledger.records import TX_KIND, Tx
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.ledgersim.keys import SALT, Key, holds, name_of

AUTHOR, OTHER = name_of(1), name_of(2)
VOTE = Statement(False, node_id_bytes(OTHER), 0, 0, bytes(32))


def seal(*items: Item, signer: str = AUTHOR) -> CheckedBlock:
    return seal_block(node_id_bytes(AUTHOR), 1, bytes(32), (), items, 5, Key(signer), SALT)


def signed_tx(signer: str) -> TxItem:
    tx = Tx(NodeSource(node_id_bytes(OTHER)), 0, bytes(32), 0, ((bytes(20), 1),))
    digest = digest_of(TX_KIND, SALT, tx.encode())
    return TxItem(tx, tx.encode(), Key(signer).sign(digest), digest)


def message(block: CheckedBlock) -> ledger_pb2.Block:
    return ledger_pb2.Block.FromString(block.raw)


def test_a_block_that_was_sealed_passes_with_all_its_items() -> None:
    block = seal(VOTE, signed_tx(OTHER), Seen(bytes(20), bytes(32)))
    assert check_block(message(block), SALT, holds) == block
    assert (block.header.author_id, block.header.height, block.header.items_count) == (AUTHOR, 1, 3)


def swap(block: ledger_pb2.Block) -> None:
    items = [*block.items]
    del block.items[:]
    block.items.extend(reversed(items))


def drop(block: ledger_pb2.Block) -> None:
    del block.items[0]


def change(block: ledger_pb2.Block) -> None:
    block.items[0] = block.items[0][:-1] + b"\x01"


def resign(block: ledger_pb2.Block) -> None:
    block.header.signature = bytes(64)


def empty(block: ledger_pb2.Block) -> None:
    del block.items[:]


def pad(block: ledger_pb2.Block) -> None:
    block.header.body += b"\0"


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (swap, "WrongItems"),
        (drop, "WrongItems"),
        (change, "WrongItems"),
        (resign, "BadSignature"),
        (empty, "BlockTooLarge"),
        (pad, "MalformedBody"),
    ],
)
def test_a_block_that_was_changed_is_refused(spoil: Callable[[ledger_pb2.Block], None], reason: str) -> None:
    block = message(seal(VOTE, signed_tx(OTHER)))
    spoil(block)
    with pytest.raises(PeerFault) as caught:
        check_block(block, SALT, holds)
    assert caught.value.reason == reason


def test_nobody_can_speak_for_another() -> None:
    with pytest.raises(PeerFault, match="not its author's"):
        check_block(message(seal(VOTE, signer=OTHER)), SALT, holds)
    with pytest.raises(PeerFault, match=f"not signed by {OTHER}"):
        check_block(message(seal(signed_tx(AUTHOR))), SALT, holds)


def test_a_block_of_another_mesh_is_refused() -> None:
    with pytest.raises(PeerFault):
        check_block(message(seal(VOTE)), bytes(16), holds)


def test_a_block_has_a_bounded_number_of_items() -> None:
    with pytest.raises(PeerFault) as caught:
        check_block(message(seal(*[VOTE] * (BLOCK_ITEMS_MAX + 1))), SALT, holds)
    assert caught.value.reason == "BlockTooLarge"


def test_a_block_has_a_bounded_number_of_signatures_and_one_too_many_costs_none() -> None:
    asked: list[Claim] = []

    def counted(claim: Claim) -> bool:
        asked.append(claim)
        return holds(claim)

    full = [signed_tx(OTHER)] * (BLOCK_SIGNATURES_MAX - 1)
    assert check_block(message(seal(*full)), SALT, counted).items == tuple(full)
    assert len(asked) == BLOCK_SIGNATURES_MAX
    with pytest.raises(PeerFault, match=f"{BLOCK_SIGNATURES_MAX + 1} signatures") as caught:
        check_block(message(seal(*full, signed_tx(OTHER))), SALT, counted)
    assert caught.value.reason == "BlockTooLarge"
    assert len(asked) == BLOCK_SIGNATURES_MAX
