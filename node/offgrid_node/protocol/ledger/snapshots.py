"""What all accounts had when an epoch began, which is what the checkpoint before it fixes.

Nothing is copied when an epoch begins: the first time that an account changes in it, what it had is kept in a row of
its own (copy on write). So a snapshot is the accounts as they are, but for those rows. They stay for as long as blocks
do (pruning.py): who has only begun to ask for a snapshot finds it still when another epoch begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import InvalidRequest, NotFound
from offgrid_node.protocol.ids import NODE_ID_BYTES
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.checkpoints import ACCOUNTS_PER_LEAF
from offgrid_node.protocol.ledger.pruning import pruned_epoch
from offgrid_node.protocol.ledger.tables import ACCOUNTS, BEFORE, EPOCH_KEY, META, number_key

PAGE_ACCOUNTS = 4 * ACCOUNTS_PER_LEAF
ENTRY_BYTES = 20 + Account.FORM.size


def accounts_at(rows: Rows, epoch: int, now: int, start: bytes = b"") -> Iterator[bytes]:
    """Each account and its row as one, in their order, from `start` on, as they were when `epoch` began; `now` is the
    epoch that it is."""
    for account, row in rows.scan(ACCOUNTS, start):
        for number in range(epoch, now + 1):
            before = rows.get(BEFORE, number_key(number) + account)
            if before is not None:
                row = before
                break
        if row and not Account.decode(row).untouched:
            yield account + row


def page_of(rows: Rows, epoch: int, now: int, oldest: int, after: bytes) -> tuple[bytes, bool]:
    """Up to PAGE_ACCOUNTS of them behind that account, and whether these are the last. Raises NotFound."""
    if not max(oldest, 1) <= epoch <= now:
        kept = f"it is of epochs {max(oldest, 1)} to {now}" if now else "none has ended"
        raise NotFound(f"what accounts had when epoch {epoch} began is not kept here: {kept}", reason="EpochGone")
    found = [*islice(accounts_at(rows, epoch, now, after + b"\0" if after else b""), PAGE_ACCOUNTS + 1)]
    return b"".join(found[:PAGE_ACCOUNTS]), len(found) <= PAGE_ACCOUNTS


def page_asked(rows: Rows, request: ledger_pb2.ListEpochAccountsRequest) -> ledger_pb2.ListEpochAccountsResponse:
    """What a peer asks for. Raises NotFound, InvalidRequest."""
    if len(request.after) not in (0, NODE_ID_BYTES):
        raise InvalidRequest.field("after", f"{len(request.after)} bytes; none or {NODE_ID_BYTES} are allowed")
    now = rows.get(META, EPOCH_KEY)
    epoch = ledger_pb2.EpochRow.FromString(now).number if now is not None else 0
    pruned = pruned_epoch(rows)
    found, last = page_of(rows, request.epoch, epoch, 0 if pruned is None else pruned + 1, request.after)
    return ledger_pb2.ListEpochAccountsResponse(accounts=found, last=last)
