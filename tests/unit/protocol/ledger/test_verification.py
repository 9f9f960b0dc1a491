"""Verifying a ledger from its genesis: what is right holds, and each thing that is wrong is found where it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from random import Random

import pytest
from ledger_bench import OWNER, W1, Bench, vote

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account, Totals
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block, seal_block
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.items import Item, Statement
from offgrid_node.protocol.ledger.records import GENESIS_KIND, Tx
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.ledger.tables import ACCOUNTS, LOG, META, TOTALS_KEY, TXS, number_of
from offgrid_node.protocol.ledger.verification import FINDINGS_MAX, Verification
from offgrid_node.protocol.ledger.views import Surveys
from offgrid_node.protocol.signing import digest_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.ledgersim.keys import FEE, SALT, Key, holds, sign_tx
from offgrid_tools.ledgersim.whole.world import World

Blocks = dict[int, ledger_pb2.Block]


@cache
def lived(seed: int = 3, lying: int = 0) -> World:
    world = World(seed, observers=2, lying=lying)
    world.open()
    world.run(5_000)
    world.loss = 0.05
    owners = [*world.nodes.values()]
    for number in range(8):
        owner, payee = world.rng.sample(owners, 2)
        owner.transfer(payee.node_id, 1 + world.rng.randrange(900), f"r-{number}")
        world.run(world.rng.randrange(600))
    world.heal()
    world.run(20_000)
    return world


class Case:
    """The ledger of one node, to be changed before it is verified."""

    def __init__(self, world: World) -> None:
        self.world, self.store = world, next(iter(world.nodes.values())).store
        self.blocks: Blocks = {number_of(key): ledger_pb2.Block.FromString(raw) for key, raw in self.store.scan(LOG)}
        self.accounts = [
            (key, account.balance_micro, account.next_seq, account.head)
            for key, account in ((key, Account.decode(value)) for key, value in self.store.scan(ACCOUNTS))
        ]
        totals = Surveys(self.store).totals
        self.totals = [totals.fees_micro, totals.supply_micro]
        rows = {key: ledger_pb2.TxRow.FromString(value) for key, value in self.store.scan(TXS)}
        self.states = {key: (row.state, row.signed.body, row.epoch) for key, row in rows.items()}
        self.in_flight: set[bytes] = set()
        body = world.genesis.encode()
        signature = Key(world.genesis.issuer).sign(digest_of(GENESIS_KIND, SALT, body))
        self.genesis = common_pb2.Signed(body=body, signature=signature)
        self._tips: dict[str, tuple[int, bytes]] = {}

    def verified(self) -> Verification:
        scratch = MemoryStore()
        found = Verification(scratch, self.genesis, SALT, holds, Random(0))
        scratch.commit(Batch(writes=found.take_writes()))
        for place, (position, block) in enumerate(self.blocks.items()):
            found.take(block, position)
            if place % 7 == 0:
                scratch.commit(Batch(writes=found.take_writes()))
        scratch.commit(Batch(writes=found.take_writes()))
        found.compare_totals(*self.totals)
        found.compare_accounts(self.accounts)
        found.compare_states(((key, *told) for key, told in self.states.items()), self.in_flight)
        found.end()
        return found

    def says(self, name: str, *items: Item) -> None:
        """The node's next block, which this one holds behind all others."""
        height, prev = self._tips.get(name) or self._tip(name)
        block = seal_block(node_id_bytes(name), height + 1, prev, (), items, 7, Key(name), SALT)
        self._tips[name] = height + 1, block.digest
        self.blocks[max(self.blocks) + 1] = ledger_pb2.Block.FromString(block.raw)

    def _tip(self, name: str) -> tuple[int, bytes]:
        own = [block for block in self.checked() if block.header.author_id == name]
        return (own[-1].header.height, own[-1].digest) if own else (0, self.world.genesis.digest(SALT))

    def checked(self) -> Iterator[CheckedBlock]:
        return (check_block(block, SALT, holds) for block in self.blocks.values())


def test_a_ledger_that_was_lived_holds() -> None:
    case = Case(lived())
    found = case.verified()
    assert found.findings == []
    assert (found.blocks, found.final, found.found) == (len(case.blocks), 8, 0)
    assert found.signatures > found.blocks


@pytest.mark.parametrize("seed", range(3))
def test_so_does_one_in_which_an_author_forked_or_an_owner_signed_twice(seed: int) -> None:
    case = Case(lived(seed))
    owner = case.world.names[-1]
    height, prev = case._tip(owner)
    account = Surveys(case.store).account(owner)
    twice = [
        sign_tx(Tx(NodeSource(node_id_bytes(owner)), account.next_seq, account.head, FEE,
                   ((node_id_bytes(case.world.names[0]), amount),)))
        for amount in (1, 2)
    ]  # fmt: skip
    case.says(owner, twice[0])
    case._tips[owner] = height, prev
    case.says(owner, twice[1])
    branch = check_block(case.blocks[max(case.blocks)], SALT, holds)
    namer = case.world.names[0]
    height, prev = case._tip(namer)
    named = seal_block(node_id_bytes(namer), height + 1, prev, (branch.digest,), twice[:1], 7, Key(namer), SALT)
    case.blocks[max(case.blocks) + 1] = ledger_pb2.Block.FromString(named.raw)
    found = case.verified()
    assert [f for f in found.findings if "transaction" not in f.where] == []


def test_so_does_one_with_a_long_branch_that_only_its_last_block_was_named_of() -> None:
    bench = Bench()
    chain = [bench.block(OWNER, vote(bench.tx(amount=1 + number))) for number in range(3)]
    bench.push(*chain)
    bench.rewind_to(OWNER, 1, chain[0].digest)
    branch = [bench.block(OWNER, vote(bench.tx(amount=100 + number))) for number in range(300)]
    bench.push(branch[0])
    bench.push(bench.block(W1, vote(bench.tx()), parents=(branch[-1].digest,)))
    bench.push(*branch)
    blocks = [(number_of(key), ledger_pb2.Block.FromString(raw)) for key, raw in bench.store.scan(LOG)]
    assert len(blocks) > 300
    scratch = MemoryStore()
    found = Verification(scratch, bench.signed, SALT, holds, Random(0))
    for position, block in blocks:
        found.take(block, position)
        scratch.commit(Batch(writes=found.take_writes()))
    found.end()
    assert found.findings == []


# ---- what is wrong


def _flip_an_item(case: Case) -> None:
    block = case.blocks[5]
    block.items[0] = block.items[0][:-1] + bytes((block.items[0][-1] ^ 1,))


def _sign_by_another(case: Case) -> None:
    block = case.blocks[5]
    block.header.signature = Key(case.world.names[0]).sign(bytes(32))


def _drop_a_block(case: Case) -> None:
    del case.blocks[4]


def _swap_two(case: Case) -> None:
    last = max(case.blocks)
    later = next(p for p in range(last, 1, -1) if len(case.blocks[p].header.body) > 150)
    case.blocks = {later: case.blocks.pop(later), **case.blocks}


def _forge_the_genesis(case: Case) -> None:
    case.genesis.signature = bytes(64)


def _richer(case: Case) -> None:
    name, balance, seq, head = case.accounts[1]
    case.accounts[1] = name, balance + 1, seq, head


def _another_slot(case: Case) -> None:
    name, balance, seq, head = case.accounts[1]
    case.accounts[1] = name, balance, seq + 1, head


def _another_head(case: Case) -> None:
    name, balance, seq, _ = case.accounts[1]
    case.accounts[1] = name, balance, seq, bytes(32)


def _one_account_more(case: Case) -> None:
    case.accounts.append((b"\xff" * 20, 0, 0, b""))


def _one_account_less(case: Case) -> None:
    del case.accounts[2]


def _the_last_account_less(case: Case) -> None:
    del case.accounts[-1]


def _less_fees(case: Case) -> None:
    case.totals[0] -= 1


def _more_supply(case: Case) -> None:
    case.totals[1] += 1


def _void_not_final(case: Case) -> None:
    digest, (_, body, _) = next(iter(case.states.items()))
    case.states[digest] = ledger_pb2.TX_STATE_VOID, body, 0


def _another_body(case: Case) -> None:
    digest, (state, body, _) = next(iter(case.states.items()))
    case.states[digest] = state, body[:-1] + bytes((body[-1] ^ 1,)), 0


def _a_transaction_less(case: Case) -> None:
    case.states.popitem()


def _a_transaction_from_nowhere(case: Case) -> None:
    digest, body = _by_hand(case)
    case.states[digest] = ledger_pb2.TX_STATE_FINAL, body, 0
    case.in_flight.add(digest)


def _by_hand(case: Case) -> tuple[bytes, bytes]:
    """Of the node's own, and in no block."""
    owner = case.world.names[0]
    tx = Tx(NodeSource(node_id_bytes(owner)), 99, bytes(32), FEE, ((node_id_bytes(owner), 7),))
    return tx.digest(SALT), tx.encode()


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        (_flip_an_item, "position 5", "its items are not those that were signed"),
        (_sign_by_another, "position 5", "signature is not its author's"),
        (_drop_a_block, "position", "which does not stand before it"),
        (_swap_two, "position", "which does not stand before it"),
        (_forge_the_genesis, "genesis", "signature is not that of its issuer"),
        (_richer, "account", "the node says"),
        (_another_slot, "account", "the node says"),
        (_one_account_more, "account", "no block speaks of it"),
        (_one_account_less, "account", "the node does not have it"),
        (_the_last_account_less, "account", "the node does not have it"),
        (_less_fees, "fees", "the node says"),
        (_more_supply, "supply", "the node says"),
        (_another_head, "account", "stands in its last slot"),
        (_another_body, "transaction", "is another"),
        (_a_transaction_less, "transactions", "1 that its blocks make final"),
        (_void_not_final, "transaction", "says TX_STATE_VOID, its blocks make it TX_STATE_FINAL"),
        (_a_transaction_from_nowhere, "transaction", "it is in none of its blocks"),
    ],
)
def test_what_is_wrong_is_found_where_it_is(change: Callable[[Case], None], where: str, what: str) -> None:
    case = Case(lived())
    change(case)
    found = case.verified()
    assert found.findings[0].where.startswith(where)
    assert what in found.findings[0].what


def test_what_was_signed_and_not_sent_is_nothing_wrong() -> None:
    case = Case(lived())
    digest, body = _by_hand(case)
    case.states[digest] = ledger_pb2.TX_STATE_SIGNED, body, 0
    assert case.verified().found == 1
    case.in_flight.add(digest)
    assert case.verified().findings == []


def test_two_final_values_and_two_certificates_are_found_though_too_many_lie() -> None:
    """Where liars weigh a third or more the machine cannot help it: whoever verifies sees it."""
    case = Case(lived())
    owner = node_id_bytes(case.world.names[-1])
    account = Surveys(case.store).account(case.world.names[-1])
    one, other = (
        sign_tx(Tx(NodeSource(owner), account.next_seq, account.head, FEE,
                   ((node_id_bytes(case.world.names[0]), amount),)))
        for amount in (1, 2)
    )  # fmt: skip
    case.says(case.world.names[-1], one, other)
    for item in (one, other):
        for witness in case.world.names[:3]:
            case.says(witness, *(Statement(it, owner, account.next_seq, 0, item.digest) for it in (False, True)))
    told = [finding.what for finding in case.verified().findings]
    assert any("has two certificates at ballot 0" in what for what in told)
    assert any("has two final values" in what for what in told)


def test_a_slot_that_ended_without_a_quorum_is_found_though_the_machine_ended_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case(lived())
    monkeypatch.setattr("offgrid_node.protocol.ledger.verification.Committee", Stricter)
    found = case.verified()
    assert found.found == found.final == 8
    assert all("has ended without a quorum of confirms" in finding.what for finding in found.findings)


class Stricter(Committee):
    """Counts apart from the machine, and never enough."""

    def enough(self, mask: int) -> bool:
        return False


def test_money_that_is_made_is_found() -> None:
    case = Case(lived())
    scratch = MemoryStore()
    found = Verification(scratch, case.genesis, SALT, holds, Random(0))
    scratch.commit(Batch(writes={**found.take_writes(), (META, TOTALS_KEY): Totals(1, 1).encode()}))
    found.end()
    assert [finding.where for finding in found.findings] == ["balances"]
    assert "money was made or lost" in found.findings[0].what


def test_blocks_that_belong_nowhere_are_named_at_the_end() -> None:
    case = Case(lived())
    _drop_a_block(case)
    assert any("it does not belong to the ledger" in finding.what for finding in case.verified().findings)


def test_findings_are_bounded_and_counted() -> None:
    case = Case(lived())
    case.accounts += [((1 << 159 | number).to_bytes(20, "big"), 0, 0, b"") for number in range(FINDINGS_MAX * 2)]
    case.accounts.sort()
    found = case.verified()
    assert len(found.findings) == FINDINGS_MAX
    assert found.found == FINDINGS_MAX * 2
