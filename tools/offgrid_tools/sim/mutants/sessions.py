"""Planted bugs that it takes a talk to see: of what applications record, and what becomes of it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from offgrid.v1 import state_pb2
from offgrid_node.keys.blocks import KEY_BYTES
from offgrid_node.protocol.state.sessions import dropping, machine
from offgrid_node.protocol.state.sessions.dropping import Dropping
from offgrid_node.protocol.state.sessions.machine import SessionsMachine
from offgrid_node.protocol.state.sessions.purging import Purging
from offgrid_node.protocol.state.summaries import keyset
from offgrid_node.protocol.state.summaries.machine import MemoryMachine
from offgrid_node.protocol.state.summaries.tables import MEMORY, UPTO_KEY
from offgrid_node.protocol.state.tables import number_key
from offgrid_node.services.memory import joining, walking
from offgrid_node.services.memory.asking import Asking
from offgrid_node.services.retention import Retention
from offgrid_node.services.sessions.folding import Folding
from offgrid_node.services.sessions.reading import Reading
from offgrid_node.services.sessions.shredding import Shredding
from offgrid_node.session_vault import SessionVault
from offgrid_tools.sim.mutants.patches import Mutant, Patch, Sound, after, never
from offgrid_tools.sim.plan import TALK_MESH


def _always_new(sound: Sound) -> Sound:
    def writer_for(row: Any, command: Any) -> Any:
        writer = sound(row, command)
        if command.sent < writer.sent:
            writer.sent = writer.before = command.sent
        return writer

    return writer_for


def _from_what_is_kept(sound: Sound) -> Sound:
    def add(self: Any, ticket: int, command: Any, now: Any) -> None:
        row = self._row(command.session_id)
        if row.session.recorded != row.session.kept and not row.session.purged_us:
            row.session.recorded = row.session.kept
            self._draft.put("sessions", command.session_id.encode(), row)
        sound(self, ticket, command, now)

    return add


def _without_pins(sound: Sound) -> Sound:
    def stays(session: Any, command: Any) -> bool:
        copy = state_pb2.Session()
        copy.CopyFrom(session)
        copy.pinned = False
        return bool(sound(copy, command))

    return stays


def _up_to_all(sound: Sound) -> Sound:
    return lambda self: (self._runtime.store.journal_seq, "")


def _what_is_summarised(sound: Sound) -> Sound:
    return lambda self: (self._around.summed_upto(), "")


def _told_alone(sound: Sound) -> Sound:
    """The journal's event goes, the block stays."""

    def drop_block(self: Any, block: Any, command: Any, answer: Any) -> bool:
        return block.first % 2 == 0 or bool(sound(self, block, command, answer))

    return drop_block


def _passed_unnoted(sound: Sound) -> Sound:
    def drop_block(self: Any, block: Any, command: Any, answer: Any) -> bool:
        row = self._session(block.session_id)
        return (row is not None and row.session.pinned) or bool(sound(self, block, command, answer))

    return drop_block


def _one_more(sound: Sound) -> Sound:
    """A snapshot's number is one too high where it is read: an event is left out of the fold."""

    def newest(self: Any, *args: Any) -> Any:
        folded = sound(self, *args)
        if folded.number:
            folded.number += 1
        return folded

    return newest


def _without_the_last(sound: Sound) -> Sound:
    """A state in memory is led on whatever comes, without the last event of several."""

    def on_events(self: Any, session_id: str, first: int, entries: Any) -> None:
        for name in self.reducers:
            live = self._live.get((session_id, name))
            if live is not None:
                live.number = first - 1
        sound(self, session_id, first, entries[:-1] if len(entries) > 1 else entries)

    return on_events


def _in_clear(sound: Sound) -> Sound:
    return lambda self, session_id, what, clear: clear


def _in_memory(sound: Sound) -> Sound:
    def create(self: Any, session_id: str) -> None:
        if not isinstance(self._keys, _Ring):
            self._keys = _Ring(self._keys)
        self._keys.new[session_id] = self._random(KEY_BYTES)

    return create


class _Ring:
    """New keys lie in memory alone."""

    def __init__(self, keys: Any) -> None:
        self._keys = keys
        self.new: dict[str, bytes] = {}

    def get(self, session_id: str) -> Any:
        return self.new.get(session_id) or self._keys.get(session_id)

    def drop(self, session_ids: Collection[str]) -> None:
        for session_id in session_ids:
            self.new.pop(session_id, None)
        self._keys.drop(session_ids)

    def __iter__(self) -> Any:
        return iter({**dict.fromkeys(self._keys), **self.new})


def _whatever_was(sound: Sound) -> Sound:
    """Takes a window whatever is summarised already."""

    def keep(self: Any, command: Any) -> Any:
        self._draft.put_bytes(MEMORY, UPTO_KEY, number_key(command.after))
        return sound(self, command)

    return keep


def _one_early(sound: Sound) -> Sound:
    """The last event of a window is in its summary, and in the next one's."""

    def close(self: Any, window: Any) -> Any:
        made = sound(self, window)
        if made.upto > made.after + 1:
            self._begin(made.upto - 1)
            made = type(made)(made.after, made.upto - 1, made.summaries)
        return made

    return close


def _summaries_alone(sound: Sound) -> Sound:
    return lambda self, page, scope, number, newest, look: sound(self, page, scope, number, newest, lambda *args: None)


def _unseen(sound: Sound) -> Sound:
    return lambda keys, place: sound(keys, place) and place % 2 == 0


def _half_of_them(sound: Sound) -> Sound:
    def join(several: Any) -> Any:
        return sound(several[: max(1, len(several) - 1)])

    return join


def _without_the_first(sound: Sound) -> Sound:
    def after(self: Any, session_id: str, number: int, *args: Any) -> Any:
        parts = sound(self, session_id, number, *args)
        for part in parts:
            yield part._replace(events=part.events[1:]) if number and len(part.events) > 1 else part

    return after


def _always_taken(sound: Sound) -> Sound:
    return lambda session, **imported: None


def _pinned_no_more(sound: Sound) -> Sound:
    def close(self: Any, row: Any, now: Any) -> None:
        row.session.pinned = False
        sound(self, row, now)

    return close


def _of(name: str, says: str, *patches: Patch) -> tuple[str, Mutant]:
    return name, Mutant(says, patches, TALK_MESH)


MUTANTS: dict[str, Mutant] = dict(
    (
        _of("recorded-twice", "what a writer sends again is recorded again", Patch(machine, "writer_for", _always_new)),
        _of(
            "numbered-by-what-is-kept",
            "events are numbered behind those that are kept",
            Patch(SessionsMachine, "_add", _from_what_is_kept),
        ),
        _of("ended-takes-more", "a session that has ended takes events", Patch(machine, "_check_takes", _always_taken)),
        _of("pin-ignored", "what is pinned is dropped", Patch(dropping, "_stays", _without_pins)),
        _of(
            "pin-lost-at-the-end",
            "a session that ends is pinned no more",
            Patch(SessionsMachine, "_close", _pinned_no_more),
        ),
        _of("dropped-unsummarised", "what is in no summary is dropped", Patch(Retention, "_may_go", _up_to_all)),
        _of(
            "dropped-without-snapshot",
            "events are dropped though no snapshot tells what they came to",
            Patch(Dropping, "_is_summed_up", never(True)),
        ),
        _of(
            "told-of-no-more",
            "blocks stay that the journal tells of no more",
            Patch(Dropping, "_drop_block", _told_alone),
        ),
        _of(
            "passed-over-unnoted",
            "what was pinned when its turn came is never dropped",
            Patch(Dropping, "_drop_block", _passed_unnoted),
        ),
        _of(
            "snapshot-skips-one",
            "an event behind a snapshot is left out",
            Patch(Folding, "_newest_snapshot", _one_more),
        ),
        _of("state-kept-up-wrong", "a state in memory misses events", Patch(Folding, "on_events", _without_the_last)),
        _of(
            "page-skips-one", "the first event behind a page is not listed", Patch(Reading, "after", _without_the_first)
        ),
        _of("sealed-in-clear", "what is said is not sealed", Patch(SessionVault, "seal", _in_clear)),
        _of("key-in-memory", "a session's key is not kept", Patch(SessionVault, "create", _in_memory)),
        _of("key-stays", "a purge leaves the key", Patch(SessionVault, "drop", never(None))),
        _of(
            "purge-not-resumed",
            "a purge that was cut off is not ended",
            Patch(Shredding, "_end_begun", lambda sound: lambda self: iter(())),
        ),
        _of(
            "purge-tried-once",
            "a purge whose commits fail is not ended before the next start",
            Patch(Shredding, "_try_later", never(None)),
        ),
        _of(
            "swept-after-a-restart",
            "rows of a purged session stay as long as the node runs",
            Patch(Purging, "end", after(lambda purging: purging._sweeps.clear())),
        ),
        _of(
            "window-twice",
            "a walk begins with the first event, whatever is summarised",
            Patch(walking, "summarised_upto", never(0)),
            Patch(MemoryMachine, "_keep", _whatever_was),
        ),
        _of("windows-overlap", "the last event of a window is in two", Patch(walking.Walk, "_close", _one_early)),
        _of(
            "asked-of-summaries-alone",
            "answers lack what is in no summary yet",
            Patch(Asking, "_scope", _summaries_alone),
        ),
        _of(
            "dropped-before-hosts-have-it",
            "what hosts do not have yet is dropped",
            Patch(Retention, "_may_go", _what_is_summarised),
        ),
        _of("keys-missed", "every other key is taken for one never seen", Patch(keyset, "may_have", _unseen)),
        _of("joined-in-part", "summaries are joined, and one is left out", Patch(joining, "join", _half_of_them)),
    )
)
