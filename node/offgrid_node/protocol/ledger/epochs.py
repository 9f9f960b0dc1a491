"""Which epoch it is, who witnesses it, and how it stands: the epoch of a block's header is compared with this.

An epoch ends with a checkpoint (cuts.py), which names the witnesses of the next one. One object for all parts of a
machine; those that remember what follows from a committee are told when another one begins.
"""

from __future__ import annotations

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.checkpoints import Checkpoint, cut_account
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.records import Header, LedgerGenesis
from offgrid_node.protocol.ledger.tables import CHECKPOINTS, EPOCH_KEY, META, number_key


class Epochs:
    """`cut` is the account in whose slot it is agreed on what this epoch ends with; `previous` the digest of the
    checkpoint before it, or of the genesis."""

    def __init__(self, own: bytes, salt: bytes, draft: Draft) -> None:
        self._own, self._salt, self._draft = own, salt, draft
        self._row = ledger_pb2.EpochRow()
        self._changed = False
        self._genesis_committee = Committee(())
        self.ledger = b""
        self.committee = Committee(())
        self.witnesses: tuple[tuple[str, int], ...] = ()
        self.own_bit = 0  # this node's in the committee
        self.cut = self.previous = b""

    def load(self, genesis: LedgerGenesis, now: Now) -> None:
        self.ledger, self._genesis_committee = genesis.digest(self._salt), Committee(genesis.witnesses)
        row = self._draft.row(META, EPOCH_KEY, ledger_pb2.EpochRow)
        self._changed = row is None
        self._row = row or ledger_pb2.EpochRow(number=genesis.epoch, entered_us=now.utc_us)
        last = self.checkpoint(self.number - 1) if self.number else None
        self._begin(last.witnesses if last else genesis.witnesses, last.digest(self._salt) if last else self.ledger)

    # ---- questions

    @property
    def number(self) -> int:
        return self._row.number

    @property
    def entered_us(self) -> int:
        return self._row.entered_us

    @property
    def moved(self) -> bool:
        """Whether anything has become final in this epoch."""
        return self._row.moved

    @property
    def wished(self) -> int:
        """Who wishes that it ends."""
        return self._row.wished

    @property
    def accused(self) -> int:
        """Which of its witnesses forked, as became known in it."""
        return self._row.accused

    def has_come(self, header: Header) -> bool:
        """Whether a block of that epoch may be taken in."""
        return header.epoch <= self._row.number

    def bit_of(self, header: Header) -> int:
        """The bit of a block's author; 0 where what it says of slots counts for nothing: it is no witness, or the
        epoch in which it spoke is over."""
        return self.committee.bit_of(header.author) if header.epoch == self._row.number else 0

    def checkpoint(self, epoch: int) -> Checkpoint | None:
        """What that epoch ended with."""
        row = self._draft.row(CHECKPOINTS, number_key(epoch), ledger_pb2.CheckpointRow)
        return Checkpoint.decode(row.body) if row is not None else None

    def committee_of(self, epoch: int) -> Committee | None:
        """None of an epoch that has not come, or lies behind what this node began with."""
        if epoch == self.number:
            return self.committee
        if epoch == 0:
            return self._genesis_committee
        before = self.checkpoint(epoch - 1)
        return Committee(before.witnesses) if before is not None else None

    def cut_of(self, epoch: int) -> bytes:
        """The account in whose slot it is agreed on what that epoch ends with."""
        return cut_account(self.ledger, epoch, self._salt)

    # ---- changes

    def move(self) -> None:
        if not self._row.moved:
            self._row.moved = self._changed = True

    def wish(self, bit: int) -> None:
        if bit & ~self._row.wished:
            self._row.wished |= bit
            self._changed = True

    def accuse(self, author: bytes) -> None:
        bit = self.committee.bit_of(author)
        if bit & ~self._row.accused:
            self._row.accused |= bit
            self._changed = True

    def enter(self, last: Checkpoint, now: Now) -> None:
        """The epoch behind this checkpoint begins. Who forked stays accused, unless an admin has chosen by now."""
        accused = () if any(last.order) else (*self.committee.nodes_of(self.accused),)
        self._row = ledger_pb2.EpochRow(number=last.epoch + 1, entered_us=now.utc_us)
        self._begin(last.witnesses, last.digest(self._salt))
        for place, (node, _) in enumerate(self.witnesses):
            self._row.accused |= (node in accused) << place
        self._changed = True

    def flush(self) -> None:
        """The end of a step: what has changed becomes a row."""
        if self._changed:
            self._draft.put(META, EPOCH_KEY, self._row)
            self._changed = False

    def _begin(self, witnesses: tuple[tuple[str, int], ...], previous: bytes) -> None:
        self.witnesses, self.committee, self.previous = witnesses, Committee(witnesses, self.number), previous
        self.own_bit = self.committee.bit_of(self._own)
        self.cut = self.cut_of(self.number)
