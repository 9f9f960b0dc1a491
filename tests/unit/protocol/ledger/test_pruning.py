"""What goes behind a checkpoint, what stays, and that what is left is a ledger still."""

from __future__ import annotations

import pytest
from ledger_bench import OWNER, PAYEE, SELF, W1, W2, W3, Bench, confirm, vote
from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import chains, packing, pruning
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.checkpoints import Checkpoint
from offgrid_node.protocol.ledger.items import Item, Marks, Seen, Statement, fork_of
from offgrid_node.protocol.ledger.pruning import PAUSE_MS
from offgrid_node.protocol.ledger.tables import (
    CHAINS,
    CHECKPOINTS,
    EVERYBODY,
    FORKS,
    LOG,
    PLACES,
    REQUESTS,
    TRANSFERS,
    TX_INDEX,
    TXS,
    number_key,
)

DAY_MS = 86_400_000
NOTE = Statement(False, node_id_bytes(OWNER), 99, 0, bytes(32))  # something to say that changes nothing


def says(bench: Bench, author: str, *items: Item) -> CheckedBlock:
    """A block of the epoch that it is."""
    block = bench.block(author, *items, epoch=bench.machine._epochs.number)
    bench.push(block, sender=author)
    return block


def pay(bench: Bench, count: int = 1) -> list[bytes]:
    """Transactions of OWNER's that become final, each by itself; their digests."""
    digests = []
    for _ in range(count):
        account = bench.views.account(OWNER)
        item = bench.tx(seq=account.next_seq, prev=account.head, amount=1)
        says(bench, OWNER, item)
        for witness in (W1, W2, W3):
            says(bench, witness, vote(item), confirm(item))
        assert bench.views.account(OWNER).next_seq == account.next_seq + 1
        digests.append(item.digest)
    return digests


def heads_of(bench: Bench) -> list[ledger_pb2.BaseRow]:
    chains = bench.machine._chains
    bases = [chains.base_of(name) for name, author in sorted(chains.authors.items()) if author.height]
    return [
        ledger_pb2.BaseRow(author=base.author, height=base.height, digest=base.digest, forked_at=base.forked_at)
        for base in bases
    ]


def end_epoch(bench: Bench, *others: CheckedBlock) -> None:
    """With a checkpoint of all that is here, but where it names `others`, and the same committee."""
    machine, epochs, zeros = bench.machine, bench.machine._epochs, bytes(32)
    body = Checkpoint(
        bench.root, epochs.number, epochs.previous, zeros, 0, 0, 0, zeros, zeros, zeros, epochs.witnesses, 0
    )
    names = {block.header.author for block in others}
    heads = [head for head in heads_of(bench) if head.author not in names] + [
        ledger_pb2.BaseRow(author=block.header.author, height=block.header.height, digest=block.digest)
        for block in others
    ]
    machine._draft.begin(bench.now())
    machine._draft.put(CHECKPOINTS, number_key(body.epoch), ledger_pb2.CheckpointRow(body=body.encode(), heads=heads))
    epochs.enter(body, bench.now())
    machine._pruning.on_entered(body.epoch, bench.now())
    bench.step()


def prune(bench: Bench) -> int:
    """Until nothing is left to do; the most rows that went in one step."""
    most, table = 0, len([*bench.store.dump()])
    while bench.machine._pruning.busy:
        bench.now_ms += PAUSE_MS
        bench.step()
        left = len([*bench.store.dump()])
        most, table = max(most, table - left), left
    return most


def log_of(bench: Bench) -> list[int]:
    return [int.from_bytes(key, "big") for key, _ in bench.store.scan(LOG)]


def test_blocks_go_when_another_epoch_has_ended_behind_their_checkpoint() -> None:
    bench = Bench()
    pay(bench, 5)
    first = log_of(bench)
    end_epoch(bench)
    prune(bench)
    assert log_of(bench) == first, "for those who are a little behind"
    pay(bench, 5)
    second = [place for place in log_of(bench) if place not in first]
    end_epoch(bench)
    prune(bench)
    assert log_of(bench) == second
    assert len([*bench.store.scan(PLACES)]) == len([*bench.store.scan(CHAINS)]) == len(second)
    assert bench.store.get(TXS, pay(bench)[0]) is not None, "it goes on"


def listed(bench: Bench, account: bytes = EVERYBODY) -> list[list[bytes]]:
    """The rows of its list, the newest first."""
    rows = (row for _, row in bench.store.scan(TX_INDEX, prefix=account))
    return [[row[at : at + 32] for at in range(0, len(row), 32)] for row in rows]


def test_no_step_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BLOCKS_MAX", 4)
    monkeypatch.setattr(packing, "ROWS_MAX", 3)
    bench = Bench()
    digests = pay(bench, 12)
    end_epoch(bench)
    prune(bench)
    end_epoch(bench)
    assert prune(bench) <= 3 * 4
    assert log_of(bench) == []
    assert [digest for row in listed(bench) for digest in row] == digests[::-1]


@pytest.mark.parametrize("rows", [packing.ROWS_MAX, packing.PACK_MAX + 8])
def test_a_list_takes_a_row_for_many_and_nobody_is_left_out(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "ROWS_MAX", rows)
    bench = Bench()
    digests = pay(bench, packing.PACK_MAX + 5)
    assert len(listed(bench)) == len(digests)
    end_epoch(bench)
    prune(bench)
    for account in (EVERYBODY, node_id_bytes(OWNER), node_id_bytes(PAYEE)):
        rows = listed(bench, account)
        assert [digest for row in rows for digest in row] == digests[::-1]
        assert [len(row) for row in rows] == [packing.PACK_MAX, 5]
    digests += pay(bench, 3)
    end_epoch(bench)
    prune(bench)
    assert [digest for row in listed(bench) for digest in row] == digests[::-1]


def test_transactions_go_when_they_are_old() -> None:
    bench = Bench()
    bench.settings = replace(bench.settings, keep_ms=30 * DAY_MS)
    bench.restart()
    old = pay(bench, 3)
    end_epoch(bench)
    prune(bench)
    bench.now_ms += 20 * DAY_MS
    young = pay(bench, 3)
    end_epoch(bench)
    prune(bench)
    assert all(bench.store.get(TXS, digest) for digest in old + young)
    bench.now_ms += 11 * DAY_MS
    end_epoch(bench)
    prune(bench)
    assert not any(bench.store.get(TXS, digest) for digest in old)
    assert all(bench.store.get(TXS, digest) for digest in young)
    for account in (EVERYBODY, node_id_bytes(OWNER), node_id_bytes(PAYEE)):
        assert [digest for row in listed(bench, account) for digest in row] == young[::-1]
    assert bench.views.account(OWNER).next_seq == 6


def test_transactions_go_when_there_are_too_many() -> None:
    bench = Bench()
    bench.settings = replace(bench.settings, keep_txs=4)
    bench.restart()
    old = pay(bench, 3)
    end_epoch(bench)
    young = pay(bench, 3)
    end_epoch(bench)
    prune(bench)
    assert all(bench.store.get(TXS, digest) for digest in old)
    young += pay(bench, 1)
    end_epoch(bench)
    prune(bench)
    assert not any(bench.store.get(TXS, digest) for digest in old)
    assert all(bench.store.get(TXS, digest) for digest in young)


def test_what_is_open_stays_however_old_it_is() -> None:
    bench = Bench()
    item = bench.tx()
    says(bench, OWNER, item)
    end_epoch(bench)
    bench.now_ms += 40 * DAY_MS
    end_epoch(bench)
    prune(bench)
    assert bench.store.get(TXS, item.digest)
    assert listed(bench) == [[item.digest]]


def test_what_its_owner_called_a_transfer_goes_with_it() -> None:
    bench = Bench()
    bench.transfer(5, request_id="r-1")
    assert len([*bench.store.scan(TRANSFERS)]) == len([*bench.store.scan(REQUESTS)]) == 1
    (digest,) = [key for key, _ in bench.store.scan(TXS)]
    item = bench.machine._transactions.get(digest)
    assert item is not None
    for witness in (W1, W2, W3):
        says(bench, witness, vote(item.item), confirm(item.item))
    end_epoch(bench)
    bench.now_ms += 40 * DAY_MS
    end_epoch(bench)
    prune(bench)
    assert not [*bench.store.scan(TRANSFERS), *bench.store.scan(REQUESTS), *bench.store.scan(TXS)]


def test_it_goes_on_after_a_crash_at_each_bite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BLOCKS_MAX", 3)
    monkeypatch.setattr(packing, "ROWS_MAX", 12)
    bench = Bench()
    digests = pay(bench, 8)
    end_epoch(bench)
    end_epoch(bench)
    for commits in [False, True, False, True] * 100:
        if not bench.machine._pruning.busy:
            break
        bench.now_ms += PAUSE_MS
        bench.step(commit=commits)
        bench.restart()
    assert not bench.machine._pruning.busy
    assert log_of(bench) == []
    assert [digest for row in listed(bench) for digest in row] == digests[::-1]
    assert len(listed(bench)) == 1


def pruned(bench: Bench) -> dict[str, CheckedBlock]:
    """The newest block of each author, all of which have gone."""
    pay(bench, 2)
    newest = {}
    for author in (OWNER, W1, W2, W3):
        held = bench.machine._chains.author(node_id_bytes(author))
        header = bench.machine._chains.header_of(held.digest)
        assert header is not None
        newest[author] = CheckedBlock(header, (), b"")
    end_epoch(bench)
    end_epoch(bench)
    prune(bench)
    assert log_of(bench) == []
    return newest


@pytest.mark.parametrize("restarts", [False, True])
def test_the_next_block_of_a_chain_follows_the_base(restarts: bool) -> None:
    bench = Bench()
    newest = pruned(bench)
    if restarts:
        bench.restart()
    block = says(bench, OWNER, NOTE)
    assert block.header.prev == newest[OWNER].digest
    assert bench.machine._chains.author(node_id_bytes(OWNER)).digest == block.digest


def test_what_lies_behind_the_base_is_of_no_use() -> None:
    bench = Bench()
    newest = pruned(bench)
    machine = bench.machine
    assert machine.of_use([newest[OWNER].signed]) == [False]
    bench.rewind_to(OWNER, 0, bench.root)
    other = bench.block(OWNER, vote(bench.tx(amount=9)))
    assert machine.of_use([other.signed]) == [False]
    bench.push(other, sender=OWNER)
    assert not machine._chains.author(node_id_bytes(OWNER)).frozen


def test_what_an_old_block_names_need_not_be_here() -> None:
    bench = Bench()
    pay(bench)
    end_epoch(bench)
    late = bench.block(W1, NOTE, parents=(b"x" * 32,), epoch=0)
    bench.push(late)
    assert bench.machine._chains.author(node_id_bytes(W1)).digest == late.digest
    lacking = bench.block(W1, NOTE, parents=(b"y" * 32,), epoch=1)
    bench.push(lacking)
    assert not bench.machine._chains.holds(lacking.digest)


def test_a_block_that_names_what_lies_behind_the_checkpoint_is_left_out() -> None:
    bench = Bench()
    pay(bench)
    behind = bench.machine._chains.header_at(node_id_bytes(W1), 1)
    assert behind is not None
    says(bench, W1, NOTE)
    end_epoch(bench)
    names_it = bench.block(OWNER, NOTE, parents=(behind.digest,), epoch=1)
    bench.push(names_it)
    assert not bench.machine._chains.holds(names_it.digest)
    newest = bench.machine._chains.author(node_id_bytes(W1)).digest
    held = bench.machine._chains.author(node_id_bytes(OWNER))
    bench.rewind_to(OWNER, held.height, held.digest)
    names_head = bench.block(OWNER, NOTE, parents=(newest,), epoch=1)
    bench.push(names_head)
    assert not bench.machine._chains.holds(names_head.digest), "others may have begun there, and not have it"
    bench.rewind_to(OWNER, held.height, held.digest)
    of_now = says(bench, W1, NOTE)
    names_it = bench.block(OWNER, NOTE, parents=(of_now.digest,), epoch=1)
    bench.push(names_it)
    assert bench.machine._chains.holds(names_it.digest)


def test_a_block_that_marks_one_of_an_epoch_that_is_over_is_left_out() -> None:
    bench = Bench()
    block = says(bench, OWNER, bench.tx(OWNER), bench.tx(PAYEE, to=OWNER))
    end_epoch(bench)
    assert bench.machine._chains.place(block.digest) is not None, "here, and not where one began at the checkpoint"
    said = says(bench, W1, Marks(False, block.digest, b"\x03"))
    assert bench.machine._chains.place(said.digest) is None
    machine = bench.machine
    machine._draft.begin(bench.now())
    machine._speak(0, [bench.tx(SELF)], bench.now())
    assert bench.tx(SELF).digest not in machine._marking._where, (
        "nor does this node mark what it said for an epoch that is over"
    )


@pytest.mark.parametrize("leans_by", ["parent", "prev"])
def test_on_what_is_older_beside_a_chain_nothing_leans_whether_it_has_gone_or_not(leans_by: str) -> None:
    bench = Bench()
    chains, name = bench.machine._chains, node_id_bytes(W1)
    first = says(bench, W1, NOTE)
    says(bench, W1, NOTE)
    bench.rewind_to(W1, 1, first.digest)
    beside = bench.block(W1, vote(bench.tx(seq=1)))
    bench.push(beside)
    says(bench, OWNER, Seen(name, beside.digest))
    bench.push(beside)
    assert chains.place(beside.digest) is not None
    end_epoch(bench)
    child = bench.block(W1, NOTE, epoch=1)
    if leans_by == "prev":
        says(bench, OWNER, Seen(name, child.digest))
        bench.push(child)
        assert chains.place(child.digest) is None
    else:
        names_it = bench.block(OWNER, NOTE, parents=(beside.digest,), epoch=1)
        bench.push(names_it)
        assert chains.place(names_it.digest) is None


def test_what_stands_beside_a_chain_goes_only_where_a_checkpoint_says_that_its_author_forked() -> None:
    """Where leaders keep that back all may lean on it, so all have to hold it."""
    bench = Bench()
    chains, name = bench.machine._chains, node_id_bytes(W1)
    first = says(bench, W1, NOTE)
    second = says(bench, W1, NOTE)
    bench.rewind_to(W1, 1, first.digest)
    beside = bench.block(W1, vote(bench.tx(seq=1)))
    bench.push(beside)
    says(bench, OWNER, Seen(name, beside.digest))
    bench.push(beside)
    for _ in range(3):
        end_epoch(bench, second)
        prune(bench)
    assert chains.place(beside.digest) is not None
    for _ in range(2):
        end_epoch(bench)
        prune(bench)
    assert chains.place(beside.digest) is None


def test_what_is_of_an_epoch_that_is_over_is_taken_in_and_not_named() -> None:
    bench = Bench()
    pay(bench)
    end_epoch(bench)
    late = bench.block(W1, NOTE, epoch=0)
    bench.push(late)
    assert bench.machine._chains.is_rooted(late.digest)
    assert late.digest not in bench.machine._chains.take_parents(node_id_bytes(OWNER))
    after = says(bench, W1, NOTE)
    assert bench.machine._chains.author(node_id_bytes(W1)).digest == after.digest, "its author goes on from there"
    assert after.digest in bench.machine._chains.take_parents(node_id_bytes(OWNER))


@pytest.mark.parametrize("below", [0, 1, 2])
def test_of_an_author_that_forked_only_what_leads_back_to_the_checkpoint_is_taken_in(below: int) -> None:
    bench = Bench()
    pay(bench)
    says(bench, W1, NOTE)
    end_epoch(bench)
    chain, name = bench.machine._chains, node_id_bytes(W1)
    base = chain.author(name)
    height = base.height
    assert height == 2
    held = chain.header_at(name, height - below)
    root = held.digest if held is not None else bench.root
    says(bench, W1, NOTE)
    bench.rewind_to(W1, height - below, root)
    other = bench.block(W1, vote(bench.tx(seq=1)), epoch=1)
    child = bench.block(W1, confirm(bench.tx(seq=1)), epoch=1)
    bench.push(other)
    assert chain.author(name).frozen
    assert not chain.holds(other.digest)
    says(bench, OWNER, Seen(name, child.digest))
    bench.push(other, child)
    assert chain.holds(other.digest) == chain.holds(child.digest) == (below == 0)


def test_what_comes_late_and_lies_behind_the_checkpoint_is_taken_in_and_not_named() -> None:
    bench = Bench()
    says(bench, W1, NOTE)
    late, head = bench.block(W1, NOTE), bench.block(W1, NOTE)
    end_epoch(bench, head)
    chains = bench.machine._chains
    bench.push(late)
    assert chains.author(node_id_bytes(W1)).height == 2
    assert not chains.is_rooted(late.digest)
    assert late.digest not in chains.take_parents(node_id_bytes(OWNER))
    after = bench.block(W1, NOTE, epoch=1)
    bench.push(after)
    assert chains.place(after.digest) is None, "the head that the checkpoint names is not here"
    bench.push(head)
    assert chains.author(node_id_bytes(W1)).digest == after.digest
    assert chains.is_rooted(after.digest)


@pytest.mark.parametrize("height", [2, 3])
def test_a_branch_that_the_checkpoint_does_not_name_goes_on_nowhere(height: int) -> None:
    bench = Bench()
    first = says(bench, W1, NOTE)
    mine = says(bench, W1, NOTE)
    bench.rewind_to(W1, 1, first.digest)
    for number in range(2, height + 1):
        named = bench.block(W1, vote(bench.tx(amount=number)))
    end_epoch(bench, named)
    bench.rewind_to(W1, 2, mine.digest)
    child, grandchild = bench.block(W1, NOTE, epoch=1), bench.block(W1, NOTE, epoch=1)
    says(bench, OWNER, Seen(node_id_bytes(W1), child.digest), Seen(node_id_bytes(W1), grandchild.digest))
    bench.push(child, grandchild)
    assert bench.machine._chains.place(child.digest) is None
    assert bench.machine._chains.place(grandchild.digest) is None


@pytest.mark.parametrize("height", [2, 3])
def test_evidence_against_one_whom_a_checkpoint_alone_froze_is_kept_and_accuses_it(height: int) -> None:
    bench = Bench()
    name, epochs = node_id_bytes(W1), bench.machine._epochs
    blocks = [says(bench, W1, NOTE) for _ in range(3)]
    bench.rewind_to(W1, 1, blocks[0].digest)
    others = [bench.block(W1, vote(bench.tx(amount=number))) for number in (2, 3)]
    end_epoch(bench, others[0])
    assert bench.machine._chains.author(name).forked_at == 2
    assert bench.store.get(FORKS, name) is None
    fork = fork_of(blocks[height - 1].signed, others[height - 2].signed)
    says(bench, OWNER, fork)
    assert bench.store.get(FORKS, name) == fork.encode()
    assert epochs.accused == epochs.committee.bit_of(name)
    assert bench.machine._chains.author(name).forked_at == 2, "the lowest that is known"


@pytest.mark.parametrize("forgets", [False, True])
def test_what_comes_next_is_not_walked_back_to_the_checkpoint_when_memory_is_trimmed(
    forgets: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "HELD_MAX", 8)
    bench = Bench()
    pay(bench)
    end_epoch(bench)
    read: list[int] = []
    header_at = chains.Chains._header_at
    for _ in range(30):
        says(bench, W1, NOTE)
        assert len(bench.machine._chains._rooted) <= 9
    if forgets:  # as at a start: once it is walked
        bench.machine._chains._rooted.clear()
        says(bench, W1, NOTE)

    def reads(self: chains.Chains, place: int) -> object:
        read.append(place)
        return header_at(self, place)

    monkeypatch.setattr(chains.Chains, "_header_at", reads)
    for _ in range(30):
        says(bench, W1, NOTE)
    assert read == []
