"""Where a store that has pruned is verified from: the checkpoint behind which its blocks are gone.

The chain of checkpoints leads there from the genesis, each naming the one before it, and each is sealed by more than a
third of its own epoch's committee as far as seals are kept: whoever began at a checkpoint has none from before it. The
accounts have the checkpoint's root, and its heads are those that it names. A seal of a liar may be wrong (items.Seal),
so wrong ones count for nothing, and it is an error only where too few are left of as many as would do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import msgspec

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32
from offgrid_node.protocol.ledger.checkpoints import (
    ACCOUNTS_PER_LEAF,
    Base,
    Checkpoint,
    account_leaves,
    cut_account,
    heads_digest,
)
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.items import Claim
from offgrid_node.protocol.ledger.pruning import pruned_epoch
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.ledger.records import DIGEST_BYTES, LedgerGenesis
from offgrid_node.protocol.ledger.snapshots import accounts_at
from offgrid_node.protocol.ledger.tables import CHECKPOINTS, EPOCH_KEY, META, SEALS, number_key, number_of
from offgrid_node.protocol.merkle import root_of
from offgrid_node.protocol.mesh.keychange import CHANGES_MAX

Find = Callable[[str, str], None]


class Start(msgspec.Struct, frozen=True):
    """What a store has of it. `accounts` are entries of snapshots.accounts_at, `seals` by epoch: who has sealed, the
    digest and the signature."""

    epoch: int
    checkpoints: Mapping[int, ledger_pb2.CheckpointRow]
    seals: Callable[[int], Iterable[tuple[bytes, bytes, bytes]]]
    accounts: Callable[[], Iterable[bytes]]


def start_of(rows: Rows) -> Start | None:
    """None of a store that has all of its blocks."""
    epoch = pruned_epoch(rows)
    if epoch is None:
        return None
    value = rows.get(META, EPOCH_KEY)
    now = ledger_pb2.EpochRow.FromString(value).number if value is not None else 0
    checkpoints = {
        number_of(key): ledger_pb2.CheckpointRow.FromString(row)
        for key, row in rows.scan(CHECKPOINTS)
        if number_of(key) <= epoch
    }
    return Start(epoch, checkpoints, lambda each: seals_of(rows, each), lambda: accounts_at(rows, epoch + 1, now))


def seals_of(rows: Rows, epoch: int) -> Iterator[tuple[bytes, bytes, bytes]]:
    """All that are kept of the checkpoint with which an epoch ended, good and bad: as in `Start.seals`."""
    for key, row in rows.scan(SEALS, number_key(epoch), prefix=number_key(epoch)):
        yield key[-NODE_ID_BYTES:], row[:DIGEST_BYTES], row[DIGEST_BYTES:]


def unsealed(
    start: Start, genesis: LedgerGenesis, salt: bytes, holds: Callable[[Claim], bool], find: Find
) -> Sequence[int]:
    """Checks the chain, tells `find` of what is wrong, and answers of which epochs too few seals are kept to tell."""
    ledger = previous = genesis.digest(salt)
    committee, lacking = Committee(genesis.witnesses), list[int]()
    for epoch in range(start.epoch + 1):
        row, where = start.checkpoints.get(epoch), f"epoch {epoch}"
        if row is None:
            find(where, "its checkpoint is not there")
            break
        body = Checkpoint.decode(row.body)
        digest = body.digest(salt)
        if (body.ledger, body.epoch, body.previous) != (ledger, epoch, previous):
            find(where, "its checkpoint does not follow the one before it")
        final = Final(ledger, cut_account(ledger, epoch, salt), 0, digest, epoch).digest(salt)
        kept = good = 0
        for witness, sealed, signature in start.seals(epoch):
            bit = committee.bit_of(witness) if sealed == digest else 0
            kept |= bit
            claims = (Claim(base32(witness), final, signature, key=number) for number in range(CHANGES_MAX + 1))
            if bit and not committee.one_is_honest(good) and any(map(holds, claims)):  # by the key of then
                good |= bit
        if not committee.one_is_honest(good):
            if committee.one_is_honest(kept):
                find(where, "too few of the seals of its checkpoint are good: no honest witness need have signed it")
            lacking.append(epoch)
        committee, previous = Committee(body.witnesses), digest
    return lacking


def has_heads(row: ledger_pb2.CheckpointRow, salt: bytes) -> bool:
    """Whether they are those that the checkpoint names."""
    heads = (Base(head.author, head.height, head.digest, head.forked_at) for head in row.heads)
    return heads_digest(heads, salt) == Checkpoint.decode(row.body).heads


class Counted:
    """Accounts as they come, and the root and number that they have."""

    def __init__(self, salt: bytes) -> None:
        self._salt = salt
        self._leaves: list[bytes] = []
        self._entries: list[bytes] = []
        self._count = 0
        self.last = b""

    def add(self, entry: bytes) -> None:
        self._count, self.last = self._count + 1, entry[:NODE_ID_BYTES]
        self._entries.append(entry)
        if len(self._entries) == ACCOUNTS_PER_LEAF:
            self._close()

    def are_of(self, body: Checkpoint) -> bool:
        """All have come: whether they are the checkpoint's."""
        if self._entries or not self._leaves:
            self._close()
        return (root_of(self._leaves), self._count) == (body.accounts, body.count)

    def _close(self) -> None:
        self._leaves += account_leaves(self._entries, self._salt)
        self._entries = []
