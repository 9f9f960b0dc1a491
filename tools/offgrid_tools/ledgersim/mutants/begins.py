"""Planted bugs of how a node begins at a checkpoint that others bring."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.ids import NODE_ID_BYTES
from offgrid_node.protocol.ledger.bootstrap import Bootstrap
from offgrid_node.protocol.ledger.snapshots import ENTRY_BYTES
from offgrid_node.protocol.ledger.tables import BOOT
from offgrid_tools.ledgersim.mutants.planted import Planted
from offgrid_tools.ledgersim.whole import node
from offgrid_tools.sim.mutants.patches import Patch, Sound, never


def _by_anybody(sound: Sound) -> Sound:
    def checked(request: Any, ledger: bytes, sender: str, salt: bytes, signed: Any) -> Any:
        return sound(request, ledger, sender, salt, lambda *claim: True)

    return checked


def _whatever_comes(sound: Sound) -> Sound:
    def take(self: Any, reply: Any) -> bool:
        for at in range(0, len(reply.accounts), ENTRY_BYTES):
            entry = reply.accounts[at : at + ENTRY_BYTES]
            self._draft.put_bytes(BOOT, entry[:NODE_ID_BYTES], entry[NODE_ID_BYTES:])
        self.ready = self._row.checkpoint
        return True

    return take


MUTANTS: dict[str, Planted] = {
    "seals-of-anybody": Planted(
        "whoever brings a checkpoint may have made up its seals",
        (Patch(node, "checked", _by_anybody),),
        level="whole",
        ends=True,
    ),
    "begins-unsealed": Planted(
        "a node begins at a checkpoint that nobody has sealed",
        (Patch(Bootstrap, "_follows", never(True)),),
        level="whole",
        ends=True,
    ),
    "begins-with-any-accounts": Planted(
        "a node begins with accounts that do not come to the checkpoint's root",
        (Patch(Bootstrap, "_take", _whatever_comes),),
        level="whole",
        ends=True,
    ),
    "never-begins": Planted(
        "a node waits for blocks that nobody has any more",
        (Patch(Bootstrap, "on_met", never(None)),),
        level="whole",
        ends=True,
    ),
}
