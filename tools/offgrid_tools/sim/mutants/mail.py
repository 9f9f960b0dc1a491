"""Planted bugs of mail: of its sources, mailboxes and destinations."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.mail.inbox import Inbox
from offgrid_node.protocol.mail.mailbox import Mailbox
from offgrid_node.protocol.mail.outbox import Outbox
from offgrid_node.protocol.mail.parcels import read_parcel
from offgrid_node.protocol.mail.tables import HELD, SEEN, parcel_key
from offgrid_node.protocol.timers import Timers
from offgrid_node.services.mail import handlers, serving
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, never
from offgrid_tools.sim.plan import MAIL_MESH


def _in_memory(sound: Sound) -> Sound:
    def keep(self: Any, command: Any, now: Any) -> Any:
        row = sound(self, command, now)
        self._draft.delete(HELD, parcel_key(command.head.source, command.head.number))
        return row

    return keep


def _any_end_is_good(sound: Sound) -> Sound:
    return lambda self, errand, reply, fault: sound(self, errand, None, None)


def _at_once(sound: Sound) -> Sound:
    def drop_expired(self: Any, now: Any) -> None:
        for key in list(self._held):
            self._drop(key, "dropped")

    return drop_expired


def _forgetting(sound: Sound) -> Sound:
    def on_served(self: Any, end: Any, now: Any) -> None:
        sound(self, end, now)
        if end.sealed is not None and self._windows[end.source].sizes.pop(end.number, None) is not None:
            self._draft.delete(SEEN, parcel_key(end.source, end.number))

    return on_served


def _without_a_floor(sound: Sound) -> Sound:
    def raise_floor(self: Any, source: str, floor: int) -> None:
        sound(self, source, floor)
        self._windows[source].floor = 0

    return raise_floor


def _not_due(sound: Sound) -> Sound:
    def load(self: Any, rows: Any, now: Any) -> None:
        sound(self, rows, now)
        self._due = Timers()

    return load


def _unsigned(sound: Sound) -> Sound:
    return lambda parcel, keys, verify, salt: read_parcel(parcel)


def _of(name: str, says: str, *patches: Patch) -> tuple[str, Mutant]:
    return name, Mutant(says, patches, MAIL_MESH)


MUTANTS: dict[str, Mutant] = dict(
    (
        _of("custody-in-memory", "a mailbox acks what it has not on disk", Patch(Mailbox, "_keep", _in_memory)),
        _of(
            "handed-over-by-hope",
            "a mailbox forgets what it has sent, whatever came of that",
            Patch(Mailbox, "on_end", _any_end_is_good),
        ),
        _of("dropped-at-once", "a mailbox drops what it holds too early", Patch(Mailbox, "drop_expired", _at_once)),
        _of("box-never-moves", "a mailbox hands nothing over", Patch(Mailbox, "on_up", never(None))),
        _of("taken-is-forgotten", "an answered request may come again", Patch(Inbox, "on_served", _forgetting)),
        _of("floor-ignored", "what has ended may come again", Patch(Inbox, "_raise_floor", _without_a_floor)),
        _of("taken-and-left", "a restart leaves what was taken unanswered", Patch(Inbox, "load", _not_due)),
        _of("expiry-untold", "nobody is told of what has expired", Patch(Outbox, "on_expired", never(None))),
        _of("signature-unchecked", "a parcel is whose its head says", Patch(handlers, "verify_parcel", _unsigned)),
        _of(
            "letter-unbound",
            "a letter opens under another sender's head",
            Patch(handlers, "letter_context", never(b"mail")),
            Patch(serving, "letter_context", never(b"mail")),
        ),
    )
)
