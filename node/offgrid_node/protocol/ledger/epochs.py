"""Which epoch it is, and who witnesses it: what a block's header says of its epoch is compared with this."""

from __future__ import annotations

from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.records import Header, LedgerGenesis


class Epochs:
    """One for all parts of a machine."""

    def __init__(self, own: bytes) -> None:
        self._own = own
        self.number = 0
        self.committee = Committee(())
        self.own_bit = 0  # this node's in the committee

    def open(self, genesis: LedgerGenesis) -> None:
        self.enter(genesis.epoch, Committee(genesis.witnesses))

    def enter(self, number: int, committee: Committee) -> None:
        self.number, self.committee = number, committee
        self.own_bit = committee.bit_of(self._own)

    def has_come(self, header: Header) -> bool:
        """Whether a block of that epoch may be taken in."""
        return header.epoch <= self.number

    def bit_of(self, header: Header) -> int:
        """The bit of a block's author; 0 where what it says of slots counts for nothing: it is no witness, or the
        epoch in which it spoke is over."""
        return self.committee.bit_of(header.author) if header.epoch == self.number else 0
