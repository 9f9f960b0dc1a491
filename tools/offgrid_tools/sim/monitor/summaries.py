"""The rules of summaries: each event is in one of them, up to where they say, and what they count is what happened;
also where several were joined. Only what was forgotten as a whole is in none any more.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import msgspec

from offgrid.event_types import type_name
from offgrid.v1 import state_pb2
from offgrid_node.keys.blocks import open_block
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.state.sessions.blocks import Entry, bound_to
from offgrid_node.protocol.state.summaries.figures import Figure
from offgrid_node.protocol.state.summaries.summary import Summary, decode
from offgrid_node.protocol.state.summaries.tables import JOURNAL, SUMMARIES, bound_as, scope_of, summarised_upto
from offgrid_node.protocol.state.tables import NUMBER_BYTES, number_of
from offgrid_tools.sim.monitor.evidence import Evidence, Violation
from offgrid_tools.sim.monitor.rules import Rules, Written
from offgrid_tools.sim.monitor.sessions import SessionRules

NUMBERS = ("energy.update/token_count", "health.heartbeat/n")  # in every event of these kinds

Scope = tuple[str, str]  # a node, and the journal or a session
Span = tuple[int, int]  # numbers of events, the first and the last


class SummaryRules(Rules):
    """Of machines whose windows are summarised."""

    def __init__(self, evidence: Evidence, sessions: SessionRules) -> None:
        self._evidence, self._sessions = evidence, sessions
        self._types: dict[str, dict[int, str]] = defaultdict(dict)  # of the journal's events, by number
        self._seen: dict[str, int] = defaultdict(int)
        self._spans: dict[Scope, dict[int, int]] = defaultdict(dict)  # of the rows that are there: last, by first
        self._forgotten: dict[Scope, list[Span]] = defaultdict(list)
        self._changed: dict[Scope, list[Span]] = defaultdict(list)  # in this batch: those that go
        self._written: dict[Scope, list[state_pb2.SummaryRow]] = defaultdict(list)

    def rows(self) -> Mapping[str, Written]:
        return {SUMMARIES: self._on_row}

    def _on_row(self, node: str, key: bytes, value: bytes | None) -> None:
        scope, first = (node, scope_of(key)), number_of(key[-NUMBER_BYTES:])
        if first in self._spans[scope]:
            self._changed[scope].append((first, self._spans[scope].pop(first)))
        if value is not None:
            row = state_pb2.SummaryRow.FromString(value)
            self._written[scope].append(row)
            self._spans[scope][first] = row.last

    def on_batch(self, node: str) -> None:
        if node not in self._sessions.keys:
            return
        for seq, raw in self._evidence.stores[node].copy().events(self._seen[node]):
            self._seen[node], self._types[node][seq] = seq, type_name(state_pb2.Event.FromString(raw).etype)
        for scope, rows in self._written.items():
            for row in rows:
                self._check_row(scope, row)
        for scope, spans in self._changed.items():
            joined = [(row.first, row.last) for row in self._written.get(scope, ())]
            for first, last in spans:
                if any(low <= first and last <= high for low, high in joined):
                    self._sessions.met["summaries joined"] += 1
                else:
                    self._sessions.met["summaries forgotten"] += 1
                    self._forgotten[scope].append((first, last))
        self._written.clear()
        self._changed.clear()

    def _check_row(self, scope: Scope, row: state_pb2.SummaryRow) -> None:
        node, of = scope
        where = f"the summary of {of}, events {row.first} to {row.last}, at {self._evidence.name_of(node)}"
        summary = self._opened(node, of, row, where)
        if summary is None:
            return
        if not summary.count == row.count == row.last - row.first + 1:
            raise Violation(f"{where} counts {summary.count}")
        if summary.types != self._happened(node, of, row):
            raise Violation(f"{where} counts {summary.types}, and there were {self._happened(node, of, row)}")
        if of != JOURNAL:
            self._check_contents(where, summary, self._sessions.known[of].events[row.first - 1 : row.last])

    def _check_contents(self, where: str, summary: Summary, events: Sequence[Entry]) -> None:
        """Numbers in full; of keys the bounds."""
        said = [(each.kind, msgspec.json.decode(each.data)) for each in events]
        for name in NUMBERS:
            kind, _, field = name.partition("/")
            numbers = [data[field] for each, data in said if each == kind]
            whole = Figure(len(numbers), min(numbers), max(numbers), sum(numbers)) if numbers else None
            if summary.figures.get(name) != whole:
                raise Violation(f"{where} has {summary.figures.get(name)} of {name}, and it was {whole}")
        keys = Counter(data["model_id"] for kind, data in said if kind == "energy.update")
        for key, times in keys.items():
            least, most = summary.bounds(key)
            if not least <= times <= most:
                raise Violation(f"{where} says that {key!r} came {least} to {most} times, and it came {times} times")

    def _opened(self, node: str, of: str, row: state_pb2.SummaryRow, where: str) -> Summary | None:
        """None: its key is gone."""
        try:
            if of == JOURNAL:
                return decode(row.body)
            key = self._sessions.keys[node].get(of)
            return decode(open_block(key, bound_to(of, bound_as(row.first, row.last)), row.body)) if key else None
        except Corrupt as fault:
            raise Violation(f"{where} cannot be read: {fault.message}") from fault

    def _happened(self, node: str, of: str, row: state_pb2.SummaryRow) -> Mapping[str, int]:
        if of == JOURNAL:
            return Counter(self._types[node][seq] for seq in range(row.first, row.last + 1))
        return Counter(each.kind for each in self._sessions.known[of].events[row.first - 1 : row.last])

    # ---- what people are told

    def on_counted(self, node: str, session: str, kind: str, told: state_pb2.AskCountResponse) -> None:
        number = sum(each.kind == kind for each in self._sessions.known[session].events[: told.basis.recorded])
        if not told.at_least <= number <= told.at_most + self._missing(node, session, told.basis):
            raise Violation(f"{session}: {told.at_least} to {told.at_most} of {kind} are told of, and were {number}")

    def key_of(self, session: str, number: int) -> str:
        """Of that event; empty: it has none."""
        events = self._sessions.known[session].events[number - 1 : number] if number else []
        return str(msgspec.json.decode(events[0].data).get("model_id", "")) if events else ""

    def on_sought(self, node: str, session: str, number: int, told: state_pb2.AskKeyResponse) -> None:
        """The key of that event, which no other one has."""
        sure = [each for each in told.sightings if each.at_least]
        if any(each.at_least > 1 or not each.first <= number <= each.last for each in sure):
            raise Violation(f"{session}: the key of event {number} is told to be elsewhere")
        seen = any(each.first <= number <= each.last and each.at_most for each in told.sightings)
        there = number <= told.basis.recorded  # unless it was shredded meanwhile
        if there and not seen and not self._missing(node, session, told.basis):
            raise Violation(f"{session}: the key of event {number} was never seen")

    def _missing(self, node: str, session: str, basis: state_pb2.AskBasis) -> int:
        """So many events an answer lacks; they are those that nobody has any more."""
        missing = basis.recorded - basis.events - basis.summarised
        blocks = self._sessions.known[session].blocks
        kept = [(first, first + count - 1) for first, (count, _) in blocks.items()]
        spans = [*kept, *self._spans[node, session].items()]
        gone = sum(not any(low <= each <= high for low, high in spans) for each in range(1, basis.recorded + 1))
        if not 0 <= missing <= gone:
            raise Violation(f"{session}: an answer lacks {missing} events, and {gone} are gone")
        return missing

    # ---- what is on the disk

    def check_store(self, node: str) -> None:
        if node not in self._sessions.keys:
            return
        upto = summarised_upto(self._evidence.stores[node].copy())
        self._check_whole((node, JOURNAL), upto)
        for session, said in self._sessions.known.items():
            if said.node != node or said.row.purged_us:
                continue
            there = [first + count - 1 for first, (count, seq) in said.blocks.items() if seq <= upto]
            dropped = min(said.blocks, default=len(said.events) + 1) - 1
            self._check_whole((node, session), max(there, default=dropped))

    def _check_whole(self, scope: Scope, upto: int) -> None:
        """Each number up to there is in one, or was in one that is forgotten."""
        at = 1
        for first, last in sorted([*self._spans[scope].items(), *self._forgotten[scope]]):
            if first != at:
                more = "in two summaries" if first < at else "in none"
                raise Violation(f"{self._evidence.name_of(scope[0])}: event {min(first, at)} of {scope[1]} is {more}")
            at = last + 1
        if at != upto + 1:
            raise Violation(f"{self._evidence.name_of(scope[0])}: of {scope[1]} {at - 1} of {upto} are summarised")
