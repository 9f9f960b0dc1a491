"""A node's part in ways over several hops: it looks for them, is an end of them, and hands on the frames of others.

Sits between an endpoint and its links. To a session a way over several hops is one more link (relayed.py); what passes
through is sealed end to end, and a relay learns who talks to whom and how much. Virtual time will do: it knows neither
thread nor loop.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from random import Random

from offgrid_transports.beacons import BEACON, read_beacon
from offgrid_transports.endpoint import Endpoint
from offgrid_transports.handshake import HELLO, SID_BYTES, WELCOME, hint_of
from offgrid_transports.path import Path
from offgrid_transports.relay.circuits import Circuit, Circuits, Way
from offgrid_transports.relay.ends import Ends
from offgrid_transports.relay.frames import (
    NAME_BYTES,
    RELAYED,
    Answer,
    Ask,
    Heard,
    Kind,
    NoWord,
    Open,
    Short,
    hop_of,
    read,
)
from offgrid_transports.relay.ground import Ground, name_of
from offgrid_transports.relay.link import RelayLink
from offgrid_transports.relay.neighbours import NEIGHBOUR_MS
from offgrid_transports.relay.opening import Opening
from offgrid_transports.relay.seeking import Seeking
from offgrid_transports.relay.switch import Switch
from offgrid_transports.session import FRAME_TYPE, HEAD_BYTES
from offgrid_transports.spending import Spending
from offgrid_transports.stamps import Newest
from offgrid_transports.transport import Schedule, Transport

PROOF_BEACONS, PROOF_MS_MAX = 3, 6 * 3_600_000.0  # where a node is, is known until it has missed so many
LABELLED = (FRAME_TYPE, HELLO, WELCOME)


class Relay:
    """`hands_on`: whether it relays for others. `is_member` says whether a member has that tag: beacons of others place
    nobody. It takes over the callbacks of links attached here."""

    def __init__(
        self,
        endpoint: Endpoint,
        public: bytes,
        psk: bytes,
        now_ms: Callable[[], float],
        schedule: Schedule,
        rng: Random,
        *,
        hands_on: bool = True,
        is_member: Callable[[bytes], bool] = lambda tag: True,
    ) -> None:
        self._endpoint, self._now_ms, self._schedule = endpoint, now_ms, schedule
        self._hint, self._psk, self._hands_on = hint_of(public), psk, hands_on
        self._ground = Ground(name_of(public), psk, now_ms, rng)
        self.counts = self._ground.counts
        self._circuits = Circuits(self._new_label, self._on_dropped)
        self._opening = Opening(self._ground, self._circuits, self._arrive_inside, self._on_no_way)
        self._switch = Switch(self._ground, self._circuits, self._arrive, self._on_no_way)
        self._seeking = Seeking(self._ground, hands_on=hands_on, found=self._on_route, lost=self._on_no_route)
        self._ends = Ends(
            self._ground, self._circuits, self._opening, self._switch, endpoint, self._seeking, self._hint
        )
        self._opening.on_opened = self._ends.on_opened
        self._ends.on_sent = self._arm
        self._newest, self._is_member = Newest(endpoint.stamp), is_member
        self._alarm_ms = math.inf
        self._closed = False
        endpoint.is_taken = self._circuits.has
        endpoint.on_opened = self._ends.on_read

    # ---- the node's side

    def attach(self, transport: Transport, price: float | None = None) -> None:
        """A link, for the endpoint, as that has it, and for others."""
        self._endpoint.attach(transport, price)
        link = RelayLink(transport, len(self._ground.links), self._now_ms, self.counts)
        self._ground.links.append(link)
        on_frame, on_room, on_change = transport.on_frame, transport.on_room, transport.on_change

        def heard(address: str, frame: bytes) -> None:
            if not self._on_frame(Path(transport, address), link, frame):
                on_frame(address, frame)
            self._arm()

        def room() -> None:
            for give in (link.on_room, on_room) if link.goes_first() else (on_room, link.on_room):
                give()
            self._ends.on_room()
            self._arm()

        def change() -> None:
            if not transport.up:
                link.clear()
            on_change()
            self._ends.on_room()
            self._arm()

        transport.on_frame, transport.on_room, transport.on_change = heard, room, change

    def path_to(self, public: bytes) -> Path:
        """Over others, if any lead there."""
        return self._ends.path(name_of(public))

    def may_reach(self, public: bytes) -> bool:
        """A way is known, or may be looked for: somebody is heard who may know one."""
        return self._ends.reaches(name_of(public))

    def node_behind(self, transport: Transport) -> bytes | None:
        """The beginning of the tag of whom that link over others leads to; None for a link of this node's own."""
        return self._ends.name_behind(transport)

    def hops_to(self, public: bytes) -> tuple[bytes, ...] | None:
        """The hops between on the way that is known, None for none."""
        return self._ground.hops_to(name_of(public))

    def over(self, transport: Transport) -> int:
        """How many are talked to over others, by that link first."""
        return self._ends.over(transport)

    def spending(self, transport: Transport) -> Spending:
        """Who uses that link's time over this node: what is sent over others by the beginning of the tag of whom it is
        for, in hexadecimal digits; what is handed on by RELAYED_FOR and the hop that it came from."""
        return self._ground.link(transport).spending

    @property
    def kept(self) -> Mapping[str, int]:
        """How much there is of all that is bounded."""
        ground = self._ground
        return {
            "circuits": len(self._circuits),
            "labels": self._circuits.labels,
            "neighbours": len(ground.neighbours),
            "routes": len(ground.routes),
            "shunned": len(ground.shunned),
            "timers": len(ground.timers),
            "opens": len(self._opening),
            "answers": self._seeking.answers,
            "searches": self._seeking.under_way,
            "waiting": len(self._ends.pending),
            "floods": max((len(link.floods) for link in ground.links), default=0),
        }

    def close(self) -> None:
        self._closed = True

    # ---- frames in

    def _on_frame(self, path: Path, link: RelayLink, frame: bytes) -> bool:
        """Whether it was a matter of relays."""
        kind = frame[0] & 0xF0 if frame else -1
        if path.shared:
            self._switch.on_air(path, len(frame))
        if kind == RELAYED:
            self._on_said(path, link, frame)
            return True
        if kind == BEACON:
            beacon = read_beacon(self._psk, frame)
            if beacon is None or not self._is_member(beacon.tag):
                return False
            if self._newest.is_new(self._now_ms(), beacon.tag, beacon.stamp):
                proof_ms = min(max(NEIGHBOUR_MS, PROOF_BEACONS * 1_000.0 * beacon.again_s), PROOF_MS_MAX)
                self._ground.neighbours.on_heard(self._now_ms(), beacon.tag[:NAME_BYTES], path, proof_ms)
            return False
        if kind not in LABELLED or len(frame) < HEAD_BYTES + 8:
            return False
        return self._on_labelled(path, kind, frame)

    def _on_labelled(self, path: Path, kind: int, frame: bytes) -> bool:
        label = int.from_bytes(frame[1 : 1 + SID_BYTES])
        found = self._circuits.by_label(label)
        if found is not None and found[1].before == path:
            self._opening.on_used(*found)
            self._ground.neighbours.on_again(self._now_ms(), self._ground.hop_before(*found), path)
            self._switch.on_frame(*found, path, frame)
            return True
        if path.shared:
            self._switch.on_other(frame)
        elif kind == FRAME_TYPE and not self._endpoint.knows_number(label):
            self._say_unknown(path, label)
        return False

    def _say_unknown(self, path: Path, label: int) -> None:
        known = self._ground.neighbours.has_proved(self._now_ms(), path)
        self._ground.reply(path, Short(Kind.UNKNOWN, label), path if known else id(path.transport))

    def _on_said(self, path: Path, link: RelayLink, frame: bytes) -> None:
        try:
            said = read(self._psk, frame, shared=path.shared)
        except NoWord:
            self.counts["relay_malformed"] += 1
            return
        match said:
            case Ask():
                self._seeking.on_ask(path, link, said, len(frame))
            case Answer():
                self._seeking.on_answer(path, said)
            case Open():
                self._seeking.on_open(said)
                if self._hands_on or self._ground.name in (said.source, said.target):
                    self._opening.on_open(path, said)
            case Heard():
                self._switch.on_heard(path, said)
            case Short(kind=Kind.HELD):
                self._opening.on_held(said.label)
            case Short(kind=Kind.LATER):
                self._opening.on_later(path, said.label)
            case Short(kind=Kind.LATE):
                self._switch.on_late(path, said.label)
            case Short(kind=Kind.BROKEN):
                self._on_broken(path, said.label)
            case Short():
                self._on_unknown(path, said.label)

    # ---- ways that break

    def _on_no_way(self, circuit: Circuit, way: Way) -> None:
        """Nobody takes this way's frames any more: who sends them is told."""
        following = self._ground.hop_before(circuit, circuit.other(way))
        if way.path is not None:
            self._ground.neighbours.lost(following, way.path)
        self._ground.routes.forget_over(following)
        self._ground.routes.forget_way(*circuit.beyond(way))
        self._ground.shun((hop_of(following),))
        if self._ground.name in (circuit.source, circuit.target):
            self._ends.distrust(circuit, blamed=False)
        self._tell_broken(circuit, way)

    def _tell_broken(self, circuit: Circuit, way: Way) -> None:
        back = circuit.other(way)
        self.counts["circuits_broken"] += 1
        if back.path is not None and back.out is not None:
            self._ground.say(back.path, Short(Kind.BROKEN, back.out))
        self._circuits.drop(circuit)

    def _on_broken(self, path: Path, label: int) -> None:
        found = self._circuits.by_label(label)
        if found is None or found[1].before != path:
            return
        circuit, way = found
        if self._ground.name in (circuit.source, circuit.target):
            self._ends.distrust(circuit, blamed=not circuit.proved)
        self._ground.routes.forget_way(*circuit.beyond(circuit.other(way)))
        self._tell_broken(circuit, circuit.other(way))

    def _on_unknown(self, path: Path, label: int) -> None:
        found = self._circuits.by_out(path, label)
        if found is not None:
            self._tell_broken(*found)

    def _on_dropped(self, circuit: Circuit) -> None:
        self._switch.forget(circuit)
        self._ends.forget(circuit)

    def _on_route(self, name: bytes) -> None:
        self._ends.on_route(name)

    def _on_no_route(self, name: bytes) -> None:
        self._ground.shunned.absolve(name)
        self._ends.on_no_route(name)

    def _arrive(self, circuit: Circuit, frame: bytes) -> None:
        self._ends.arrive(circuit, frame, labelled=True)

    def _arrive_inside(self, circuit: Circuit, frame: bytes) -> None:
        self._ends.arrive(circuit, frame, labelled=False)

    # ---- time

    def _on_time(self) -> None:
        now_ms = self._now_ms()
        for key in self._ground.timers.take_due(math.floor(now_ms)):
            assert isinstance(key, tuple)
            match key:
                case ("flood", place):
                    self._ground.go_on_flooding(self._ground.links[place])
                case ("answer", *_):
                    self._seeking.on_timer(key)
                case ("open", sent):
                    self._opening.on_timer(sent)
                case ("unopened", circuit):
                    self._ends.pending.on_unopened(circuit)
                case ("room", name):
                    self._ends.on_room(name)
                case ("proceed", name):
                    self._ends.pending.on_proceed(name)
                case ("word", circuit):
                    self._switch.on_timer("word", circuit, None)
                case (what, circuit, way):
                    self._switch.on_timer(what, circuit, way)
        self._seeking.on_time()

    def _arm(self) -> None:
        if self._closed:
            return
        deadline_ms = self._ground.timers.deadline_ms
        due_ms = min(math.inf if deadline_ms is None else deadline_ms, self._seeking.due_ms)
        if due_ms < self._alarm_ms:
            self._alarm_ms = due_ms
            self._schedule(max(1, math.ceil(due_ms - self._now_ms())), lambda: self._ring(due_ms))

    def _ring(self, due_ms: float) -> None:
        if self._alarm_ms == due_ms:
            self._alarm_ms = math.inf
        if not self._closed:
            self._on_time()
            self._arm()

    def _new_label(self) -> int:
        while True:
            label = self._ground.rng.getrandbits(8 * SID_BYTES)
            known = self._circuits.has(label) or self._endpoint.knows_number(label)
            if label and not known and label.to_bytes(SID_BYTES) != self._hint:
                return label
