"""Whether a ledger is what its genesis and its blocks make of it: every signature, chain, certificate and balance.

Blocks come in the order in which a node took them in. Each is checked like one from outside, must lean on blocks before
it alone, and is replayed (replay.py), with the ends of epochs, their roots and rewards; what witnesses say is counted
a second time, apart from the machine (recount.py). At the end the rows that came of it are compared with those that are
to be verified. A store that has pruned is verified from the checkpoint behind which blocks are gone (pruned_start.py).

Memory follows accounts, epochs and what the recount remembers, not the blocks; findings are bounded by FINDINGS_MAX.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

import msgspec

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32
from offgrid_node.protocol.ledger.accounts import Account, Totals
from offgrid_node.protocol.ledger.audit import overdrawn, sums
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, cut_account
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.items import Claim, Cut, Item, Statement, decode_item
from offgrid_node.protocol.ledger.marking import Places, places_of, spelled
from offgrid_node.protocol.ledger.pruned_start import Counted, Start, has_heads, unsealed
from offgrid_node.protocol.ledger.records import GENESIS_KIND, TX_KIND, LedgerGenesis, tx_id_of
from offgrid_node.protocol.ledger.recount import Recount
from offgrid_node.protocol.ledger.replay import Replay, Writes
from offgrid_node.protocol.ledger.tables import (
    ACCOUNTS,
    BOOT,
    BOOT_KEY,
    CHECKPOINTS,
    LOG,
    META,
    PLACES,
    TOTALS_KEY,
    TXS,
    number_key,
)
from offgrid_node.protocol.ledger.views import Scanner
from offgrid_node.protocol.rng import Rng
from offgrid_node.protocol.signing import digest_of

FINDINGS_MAX = 64  # kept as sentences; more are counted
BOOT_ROWS = 4_096  # in one write
MARKED_MAX = 64  # blocks whose transactions are held in memory, for what is marked of them


class Finding(msgspec.Struct, frozen=True):
    where: str
    what: str


class Verification:
    """`holds` answers whether a claim is signed; `rows`, empty at first, are scratch: whoever calls commits
    `take_writes` to them now and then."""

    def __init__(
        self, rows: Scanner, genesis: common_pb2.Signed, salt: bytes, holds: Callable[[Claim], bool], rng: Rng
    ) -> None:
        self._rows, self._salt, self._holds = rows, salt, holds
        self._genesis = body = LedgerGenesis.decode(genesis.body)
        ledger = body.digest(salt)
        self._committees = {0: Committee(body.witnesses)}
        self._bases = {ledger}  # digests of what a chain may begin behind
        self._recount = Recount(self._committee_of, lambda epoch: cut_account(ledger, epoch, salt), self.find)
        self._places: OrderedDict[bytes, Places] = OrderedDict()
        self._pending: Writes = {}
        self.findings: list[Finding] = []
        self._behind: dict[bytes, int] = {}  # author → the height up to which its blocks are of no use
        self.first = 0  # the epoch from which on it is replayed
        self.unsealed: Sequence[int] = ()  # epochs before it of whose checkpoint too few seals are kept
        self.found = self.blocks = self.signatures = self.final = self.below_zero = self.epochs = 0
        if not self._signed(Claim(body.issuer, digest_of(GENESIS_KIND, salt, genesis.body), genesis.signature)):
            self.find("genesis", f"the signature is not that of its issuer, {body.issuer}")
        self._replay = Replay(rows, genesis, salt, rng)

    def begin_at(self, start: Start) -> Iterator[Writes]:
        """Before any block, and with nothing to commit: writes, each to be committed before the next is asked for.
        Whatever is found makes the rest not worth checking."""
        row = start.checkpoints.get(start.epoch)
        self.unsealed = unsealed(start, self._genesis, self._salt, self._signed, self.find)
        if row is None or self.found:
            return
        where, body, counted = f"epoch {start.epoch}", Checkpoint.decode(row.body), Counted(self._salt)
        if not has_heads(row, self._salt):
            self.find(where, "the heads of chains at its end are not those that its checkpoint names")
            return
        writes: Writes = {
            (CHECKPOINTS, number_key(epoch)): told.SerializeToString() for epoch, told in start.checkpoints.items()
        }
        for entry in start.accounts():
            counted.add(entry)
            writes[BOOT, entry[:NODE_ID_BYTES]] = entry[NODE_ID_BYTES:]
            if len(writes) > BOOT_ROWS:
                yield writes
                writes = {}
        if not counted.are_of(body):
            self.find(where, "accounts as they were at its end do not have the root of its checkpoint")
            return
        writes[META, BOOT_KEY] = ledger_pb2.BootRow(checkpoint=row, after=counted.last).SerializeToString()
        yield writes
        self._replay.begin()
        yield self._replay.take_writes()
        self._behind = {head.author: head.height for head in row.heads}
        self._bases |= {head.digest for head in row.heads}
        self.first = start.epoch + 1
        self._recount.enter(self.first)

    def take(self, block: ledger_pb2.Block, position: int) -> None:
        """The next block, which the node has at that position."""
        self.blocks += 1
        try:
            checked = check_block(block, self._salt, self._signed)
        except PeerFault as fault:
            self.find(f"position {position}", fault.message)
            return
        if checked.header.height <= self._behind.get(checked.header.author, 0):
            return
        name = f"position {position}, block {checked.header.height} of {checked.header.author_id}"
        for digest in checked.leans_on if checked.header.epoch >= self._recount.epoch else ():
            if digest not in self._bases and not self._is_held(digest):
                self.find(name, f"it leans on {digest.hex()[:16]}, which does not stand before it")
        self._count(checked, name)
        changed = self._replay.take(checked)
        self._pending |= changed
        ended = [value for (table, _), value in changed.items() if table == CHECKPOINTS and value is not None]
        for row in map(ledger_pb2.CheckpointRow.FromString, ended):
            body = Checkpoint.decode(row.body)
            self._recount.on_checkpoint(body, body.digest(self._salt), name)
            self._bases |= {head.digest for head in row.heads}
        for (table, key), value in changed.items():
            if table == ACCOUNTS and value is not None:
                self._recount.on_ended(key, Account.decode(value), name)
            elif table == TXS and value is not None:
                self.final += ledger_pb2.TxRow.FromString(value).state == ledger_pb2.TX_STATE_FINAL
        if ended:
            self.epochs += len(ended)
            self._recount.enter(self._recount.epoch + len(ended))

    def take_writes(self) -> Writes:
        """All since this was asked last, to be committed to the scratch rows before the next block."""
        self._pending = {}
        return self._replay.take_writes()

    def end(self) -> None:
        """All blocks have come, and are committed."""
        for block in self._replay.left.values():
            if block.header.epoch < self.first:
                continue  # beside its author's chain: it goes with the others
            name = f"block {block.header.height} of {block.header.author_id}"
            self.find(name, "it does not belong to the ledger: what it follows is not there, or it is out of reach")
        if not sums(self._rows).conserved:
            self.find("balances", f"money was made or lost: {sums(self._rows)}")
        self.below_zero = len(overdrawn(self._rows))

    # ---- against what is to be verified

    def compare_totals(self, fees_micro: int, supply_micro: int) -> None:
        row = self._rows.get(META, TOTALS_KEY)
        worked_out = Totals.decode(row) if row is not None else Totals()
        for what, told, ours in (
            ("fees", fees_micro, worked_out.fees_micro), ("supply", supply_micro, worked_out.supply_micro)
        ):  # fmt: skip
            if told != ours:
                self.find(what, f"the node says {told}, its blocks make {ours}")

    def compare_accounts(self, told: Iterable[tuple[bytes, int, int, bytes]]) -> None:
        """(account, balance, next slot, what stands in the last one; b"": not told) of all that have ever had money, in
        the order of their bytes. What is below zero for a while may be told as zero. A checkpoint has no accounts that
        were never touched."""
        left = ((key, Account.decode(value)) for key, value in self._rows.scan(ACCOUNTS))
        if self.first:
            left = ((key, account) for key, account in left if not account.untouched)
            told = (each for each in told if any(each[1:3]))
        ours = next(left, None)
        for key, balance, next_seq, head in told:
            while ours is not None and ours[0] < key:
                self.find(f"account {base32(ours[0])}", "the node does not have it, its blocks do")
                ours = next(left, None)
            if ours is None or ours[0] != key:
                self.find(f"account {base32(key)}", "no block speaks of it, and the node has it")
                continue
            worked_out = ours[1].balance_micro, ours[1].next_seq
            if (balance, next_seq) not in (worked_out, (max(0, worked_out[0]), worked_out[1])):
                what = f"the node says {balance} and slot {next_seq}, its blocks make {worked_out[0]} and slot "
                self.find(f"account {base32(key)}", f"{what}{worked_out[1]}")
            if head and head != ours[1].head:
                what = f"the node says that {head.hex()[:16]} stands in its last slot, its blocks make that "
                self.find(f"account {base32(key)}", f"{what}{ours[1].head.hex()[:16]}")
            ours = next(left, None)
        if ours is not None:
            self.find(f"account {base32(ours[0])}", "the node does not have it, its blocks do")

    def compare_states(self, told: Iterable[tuple[bytes, int, bytes, int]], in_flight: Collection[bytes] = ()) -> None:
        """(transaction's digest, state, body, epoch in which it ended) of all that the node has; `in_flight` of its
        own, which need not have been sent. What ended, or never did, behind the checkpoint is in no block any more."""
        ends, known = (ledger_pb2.TX_STATE_FINAL, ledger_pb2.TX_STATE_VOID), 0
        for digest, state, body, epoch in told:
            if digest_of(TX_KIND, self._salt, body) != digest:
                self.find(f"transaction {tx_id_of(digest)}", "what the node has by that name is another")
            value = self._rows.get(TXS, digest)
            if value is None and state == ledger_pb2.TX_STATE_SIGNED and digest in in_flight:
                continue
            if value is None and self.first and (epoch < self.first or state not in ends):
                continue
            if value is None:
                self.find(f"transaction {tx_id_of(digest)}", "the node has it, and it is in none of its blocks")
                continue
            ours = ledger_pb2.TxRow.FromString(value).state
            known += ours == ledger_pb2.TX_STATE_FINAL
            if state != ours and (state in ends or ours in ends):
                names = ledger_pb2.TxState.Name
                what = f"the node says {names(state)}, its blocks make it {names(ours)}"  # type: ignore[arg-type]
                self.find(f"transaction {tx_id_of(digest)}", what)
        if lacking := self.final - known:
            self.find("transactions", f"{lacking} that its blocks make final the node does not have")

    def find(self, where: str, what: str) -> None:
        self.found += 1
        if len(self.findings) < FINDINGS_MAX:
            self.findings.append(Finding(where, what))

    def compare_epochs(self, told: Iterable[tuple[int, bytes]]) -> None:
        """(number, checkpoint's body) of all that have ended."""
        found = dict(told)
        ours = {number: self._body_of(number) for number in range(self._recount.epoch)}
        for number in sorted(found.keys() | ours.keys()):
            if found.get(number) != ours.get(number):
                here = "another checkpoint" if number in found and number in ours else "no end of it"
                whose = "its blocks make" if number in found else "the node says"
                self.find(f"epoch {number}", f"{whose} {here}")

    # ---- inside

    def _body_of(self, epoch: int) -> bytes | None:
        key = number_key(epoch)
        row = self._pending.get((CHECKPOINTS, key)) or self._rows.get(CHECKPOINTS, key)
        return ledger_pb2.CheckpointRow.FromString(row).body if row is not None else None

    def _committee_of(self, epoch: int) -> Committee | None:
        found = self._committees.get(epoch)
        if found is None and epoch and (body := self._body_of(epoch - 1)) is not None:
            found = self._committees[epoch] = Committee(Checkpoint.decode(body).witnesses)
        return found

    def _signed(self, claim: Claim) -> bool:
        self.signatures += 1
        return self._holds(claim)

    def _is_held(self, digest: bytes) -> bool:
        return (
            digest in self._replay.left
            or (PLACES, digest) in self._pending
            or self._rows.get(PLACES, digest) is not None
        )

    def _count(self, block: CheckedBlock, name: str) -> None:
        author, epoch = block.header.author, block.header.epoch
        if epoch < self.first:
            return
        for item in spelled(block.items, self._places_in):
            if isinstance(item, Statement):
                self._recount.on_said(author, epoch, item, name)
            elif isinstance(item, Cut):
                self._recount.on_cut(epoch, item.checkpoint.digest(self._salt), item)

    def _places_in(self, digest: bytes) -> Places:
        """Of a block that stood before; counted here apart from the machine, by blocks as they came."""
        places = self._places.get(digest)
        if places is None:
            places = self._places[digest] = places_of(self._items_of(digest))
            if len(self._places) > MARKED_MAX:
                self._places.popitem(last=False)
        return places

    def _items_of(self, digest: bytes) -> Iterable[Item]:
        if (waits := self._replay.left.get(digest)) is not None:
            return waits.items
        place = self._pending.get((PLACES, digest)) or self._rows.get(PLACES, digest)
        raw = (self._pending.get((LOG, place)) or self._rows.get(LOG, place)) if place is not None else None
        block = ledger_pb2.Block.FromString(raw or b"")
        return [decode_item(item, self._salt) for item in block.items]
