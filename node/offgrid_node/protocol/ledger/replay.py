"""The ledger worked out anew, from its genesis and its blocks alone, or from a checkpoint and the blocks behind it, by
the very machine that every node runs.

Whoever replays is nobody: it has no key, so it votes for nothing and sends nothing, and its clock stands still. What it
comes to depends on which blocks it is given (README.md, 8), so its rows are what every node that holds them must have.
"""

from __future__ import annotations

from collections.abc import Mapping

from offgrid.v1 import common_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Asked, Delete, Put, Rows, Woke
from offgrid_node.protocol.errors import Corrupt, Internal
from offgrid_node.protocol.ids import NODE_ID_BYTES, base32
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.commands import OpenLedger, PushBlocks
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.protocol.ledger.records import LedgerGenesis
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.tables import NAMED, PLACES
from offgrid_node.protocol.mesh.wrapping import WrappingKey
from offgrid_node.protocol.rng import Rng

LEFT_MAX = 4_096  # blocks that wait for one behind them: those of an author that forked, as orphans of several peers
LEFT_BYTES_MAX = 64 * 1024 * 1024  # together

Writes = dict[tuple[str, bytes], bytes | None]


class _Nobody:
    """A `Signer` without a key."""

    node_id = base32(bytes(NODE_ID_BYTES))
    public_key = bytes(32)

    def sign(self, digest: bytes) -> bytes:
        raise Internal("whoever replays signs nothing", reason="Replay")

    def wrapping_key(self, number: int) -> WrappingKey:
        raise Internal("whoever replays opens nothing", reason="Replay")


class Replay:
    """`rows` are empty at first; whoever calls commits `take_writes` to them, at any time between two blocks."""

    def __init__(self, rows: Rows, genesis: common_pb2.Signed, salt: bytes, rng: Rng) -> None:
        self._rows, self._rng, self._salt = rows, rng, salt
        self._load(0)
        self._instant = 1
        self._writes: Writes = {}
        self._left: dict[bytes, CheckedBlock] = {}
        self._step(Asked(0, "", OpenLedger(genesis, LedgerGenesis.decode(genesis.body))))

    def begin(self) -> None:
        """At the checkpoint whose rows (bootstrap.py) are committed, and before any block."""
        self._load(self._instant)
        self._step(Woke())

    def take(self, block: CheckedBlock) -> Writes:
        """What changes with this block: nothing while it waits for others. Raises Corrupt where too many do."""
        if len(self._left) >= LEFT_MAX or sum(len(each.raw) for each in self._left.values()) > LEFT_BYTES_MAX:
            raise Corrupt(f"{len(self._left)} blocks wait for others that do not come", reason="Replay")
        self._left[block.digest] = block
        changed, held = self._push(block), -1
        names = any(table == NAMED for table, _ in changed) or block.digest in self._left
        while names and self._left and held != len(self._left):  # what an author that forked brings counts once named,
            held = len(self._left)
            changed |= self._push(*self._left.values())  # with all that comes along: see intake.py
        return changed

    def take_writes(self) -> Writes:
        """All since this was asked last, to be committed before the next block."""
        writes, self._writes = self._writes, {}
        self._instant += 1
        return writes

    @property
    def left(self) -> Mapping[bytes, CheckedBlock]:
        """Blocks, by their digests, that the ledger does not take in, as far as it is given."""
        return self._left

    def _push(self, *blocks: CheckedBlock) -> Writes:
        return self._step(Asked(0, "", PushBlocks(_Nobody.node_id, blocks)))

    def _load(self, instant: int) -> None:
        self._machine = LedgerMachine(LedgerSettings(_Nobody(), self._salt))
        self._machine.load(self._rows, Now(0, instant))

    def _step(self, event: object) -> Writes:
        changed: Writes = {}
        for effect in self._machine.step([event], Now(0, self._instant), self._rng):
            if isinstance(effect, Put):
                changed[effect.table, effect.key] = effect.value
            elif isinstance(effect, Delete):
                changed[effect.table, effect.key] = None
        for table, key in changed:
            if table == PLACES:
                self._left.pop(key, None)
        self._writes |= changed
        return changed
