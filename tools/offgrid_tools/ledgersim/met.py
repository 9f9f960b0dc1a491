"""What a seed's nodes really met: a misfortune that was drawn and never happened proves nothing."""

from __future__ import annotations

import msgspec


class Met(msgspec.Struct):
    """How often. `cut_off` and `lost` are messages, `lies` what a liar signs against what it has signed before, `torn`
    slots of two transactions or more; of `epochs` that ended, `ordered` by an admin's order, and `evicted` without
    somebody who forked; `usurped` is how often a liar led the end of one and proposed what it liked; `dismissed` are
    admins, `awoken` nodes that began at a checkpoint."""

    crashes: int = 0
    lost: int = 0
    cut_off: int = 0
    repeated: int = 0
    lies: int = 0
    torn: int = 0
    unlocks: int = 0
    restored: int = 0
    epochs: int = 0
    ordered: int = 0
    evicted: int = 0
    usurped: int = 0
    dismissed: int = 0
    awoken: int = 0

    def add(self, other: Met) -> None:
        for kind, count in other.counts().items():
            setattr(self, kind, getattr(self, kind) + count)

    def counts(self) -> dict[str, int]:
        return msgspec.structs.asdict(self)

    def __str__(self) -> str:
        return ", ".join(f"{kind.replace('_', ' ')} {count}" for kind, count in self.counts().items())
