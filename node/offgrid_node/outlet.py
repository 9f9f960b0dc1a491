"""Where effects leave the node, once what they follow from is durable."""

from __future__ import annotations

from typing import Protocol

from offgrid_node.protocol.effects import Call, DropBlob, Execute, Fill, Outgoing, Stop
from offgrid_node.protocol.mail.errands import Serve
from offgrid_node.protocol.objects.errands import (
    Audit,
    Compare,
    Fetch,
    KeepSegment,
    Rebuild,
    Regain,
    Reseal,
    Rewrap,
    Ship,
)


class Outlet(Protocol):
    """Carries them out. What ends comes back through `Runtime.deliver`."""

    def call(self, call: Call) -> None: ...

    def execute(self, work: Execute) -> None: ...

    def stop(self, work: Stop) -> None: ...

    def fill(self, work: Fill) -> None: ...

    def ship(self, work: Ship) -> None: ...

    def rebuild(self, work: Rebuild) -> None: ...

    def fetch(self, work: Fetch) -> None: ...

    def drop_blob(self, work: DropBlob) -> None: ...

    def keep_segment(self, work: KeepSegment) -> None: ...

    def compare(self, work: Compare) -> None: ...

    def audit(self, work: Audit) -> None: ...

    def rewrap(self, work: Rewrap) -> None: ...

    def reseal(self, work: Reseal) -> None: ...

    def regain(self, work: Regain) -> None: ...

    def serve(self, work: Serve) -> None: ...


def let_out(outlet: Outlet, effect: Outgoing) -> None:
    """To whoever carries it out. A Reply is the runtime's own."""
    match effect:
        case Call():
            outlet.call(effect)
        case Execute():
            outlet.execute(effect)
        case Stop():
            outlet.stop(effect)
        case Fill():
            outlet.fill(effect)
        case Ship():
            outlet.ship(effect)
        case Rebuild():
            outlet.rebuild(effect)
        case Fetch():
            outlet.fetch(effect)
        case DropBlob():
            outlet.drop_blob(effect)
        case KeepSegment():
            outlet.keep_segment(effect)
        case Compare():
            outlet.compare(effect)
        case Audit():
            outlet.audit(effect)
        case Rewrap():
            outlet.rewrap(effect)
        case Reseal():
            outlet.reseal(effect)
        case Regain():
            outlet.regain(effect)
        case Serve():
            outlet.serve(effect)
