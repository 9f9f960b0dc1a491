"""Planted bugs of the runtime: what leaves before it is durable, and memory that outlives a failed commit."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.effects import Call, Execute, Reply
from offgrid_node.runtime import Runtime
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, early


def _fail_without_reload(sound: Sound) -> Sound:
    def fail(self: Any, pending: Any, fault: Any) -> None:
        self._in_commit = None
        for effect in pending.outgoing:
            if isinstance(effect, Reply) and (ticket := self._tickets.pop(effect.ticket, None)):
                ticket.resolve(fault)

    return fail


def _old_machines_stay(sound: Sound) -> Sound:
    def reload(self: Any, fault: Any = None) -> None:
        old = self.machines
        sound(self, fault)
        if not self.machines:
            self.machines, self._absent = old, None

    return reload


MUTANTS: dict[str, Mutant] = {
    "reply-before-commit": Mutant(
        "answers leave while their batch is still being synced",
        (Patch(Runtime, "gather", early(lambda effect: isinstance(effect, Reply))),),
    ),
    "send-before-commit": Mutant(
        "calls to other nodes leave while their batch is still being synced",
        (Patch(Runtime, "gather", early(lambda effect: isinstance(effect, Call))),),
    ),
    "execute-before-commit": Mutant(
        "work starts while its lease is still being synced",
        (Patch(Runtime, "gather", early(lambda effect: isinstance(effect, Execute))),),
    ),
    "no-reload": Mutant(
        "after a failed commit the machines go on with what they remember",
        (Patch(Runtime, "fail", _fail_without_reload),),
    ),
    "old-machines-stay": Mutant(
        "after a failed commit, on a disk that cannot be read, the machines go on with what they remember",
        (Patch(Runtime, "reload", _old_machines_stay),),
    ),
}
