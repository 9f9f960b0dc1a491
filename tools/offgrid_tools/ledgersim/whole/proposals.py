"""What a machine would end its epoch with, for liars to look at; and what it has to ask of one that is proposed."""

from __future__ import annotations

from msgspec.structs import replace

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.checkpoints import NO_ORDER, Target, heads_digest
from offgrid_node.protocol.ledger.items import Cut, Statement
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_tools.ledgersim.judge import Broken
from offgrid_tools.ledgersim.keys import SALT


def proposal(
    machine: LedgerMachine, now: Now, *, without: bool = False, extra: Target | None = None, beyond: bool = False
) -> Cut:
    """`without` slots that are not final here, or with one `extra`, or with the last head `beyond` what its author has
    said. Raises NotYet."""
    cuts = machine._turning._cuts
    sound = cuts._targets
    if without or extra is not None:
        kept = {each.account: each for each in sound()} | {extra.account: extra} if extra is not None else {}
        cuts._targets = lambda: [kept[account] for account in sorted(kept)]  # type: ignore[method-assign]
    try:
        cut = cuts.propose(now)
    finally:
        cuts._targets = sound  # type: ignore[method-assign]
    if beyond and cut.heads:
        last = replace(cut.heads[-1], height=cut.heads[-1].height + 1, digest=bytes(32))
        last = replace(last, forked_at=last.forked_at and last.height + 1)
        cut = replace(cut, heads=(*cut.heads[:-1], last))
        cut = replace(cut, checkpoint=replace(cut.checkpoint, heads=heads_digest(cuts.merged(cut), SALT)))
    return cut


def unordered(machine: LedgerMachine, now: Now) -> Cut:
    """As if nobody had ordered anything. Raises NotYet."""
    cuts = machine._turning._cuts
    cut = cuts.propose(now)
    return replace(cut, checkpoint=replace(cut.checkpoint, order=NO_ORDER, witnesses=cuts._without_liars()))


def check_orders(machine: LedgerMachine, block: CheckedBlock) -> None:
    """At a first ballot, where no certificate is named, it votes for no cut that leaves out an order that it has."""
    turning, epochs = machine._turning, machine._epochs
    best = turning.orders.best()
    if best is None or block.header.epoch != epochs.number:
        return
    for item in block.items:
        if isinstance(item, Statement) and (item.account, item.ballot) == (epochs.cut, 1):
            cut = turning._cuts.held(item.tx_digest)
            if cut is not None and not item.confirms and cut.checkpoint.order != best.digest:
                raise Broken(f"{block.header.author_id} votes for an end without the order that has force there")
