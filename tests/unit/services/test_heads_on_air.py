"""Members on one slow link find out where their ledgers differ: one speaks, all who lack something learn what."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from random import Random
from typing import cast

from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.ledger.beacon import Beacon, Listener
from offgrid_node.protocol.ledger.commands import HeadsHeard
from offgrid_node.protocol.ledger.heads import Heads
from offgrid_node.protocol.ledger.machine import LedgerMachine
from offgrid_node.services.ledger.heads_on_air import CALM_MS, MARK_BYTES, SYMBOLS_SHARE, HeadsOnAir
from offgrid_transports.tellings import TELLING_BYTES_MAX
from offgrid_transports.transport import Transport

ROOT = b"g" * 32
GAP_MS = SYMBOLS_SHARE * TELLING_BYTES_MAX


class Slow:
    """A link on which a byte takes a millisecond."""

    up = True

    def airtime_ms(self, length: int) -> float:
        return float(length)


class Ledger:
    """As much of a machine as is asked for."""

    def __init__(self) -> None:
        self.heads, self.open = Heads(), True
        self.move(1, 1)

    def move(self, author: int, height: int) -> None:
        self.heads.move(author.to_bytes(20), height, height.to_bytes(32))

    @property
    def heads_summary(self) -> bytes:
        return self.heads.summary(ROOT) if self.open else b""

    def beacon(self) -> Beacon:
        return Beacon(self.heads, ROOT)

    def listener(self) -> Listener:
        return Listener(self.heads, ROOT)


class Member:
    def __init__(self, air: Air, name: str) -> None:
        self.ledger, self.link, self.loads = Ledger(), cast("Transport", Slow()), False
        self.learnt: list[HeadsHeard] = []
        self.said = 0

        def ledger() -> LedgerMachine:
            if self.loads:
                raise Unavailable("it loads what it knows", reason="Reloading")
            return cast("LedgerMachine", self.ledger)

        def tell(link: Transport, said: bytes) -> None:
            self.said += 1
            for other in air.members.values():
                if other is not self:
                    other.on_air.on_said(name, other.link, said)

        self.on_air = HeadsOnAir(ledger, tell, self.learnt.append, lambda: air.now_ms, air.schedule, Random(name))


class Air:
    """Members who hear each other, in virtual time; each says a beacon a minute."""

    def __init__(self, *names: str) -> None:
        self.now_ms, self._order = 0.0, itertools.count()
        self._due: list[tuple[float, int, Callable[[], object]]] = []
        self.members = {name: Member(self, name) for name in names}

    def schedule(self, delay_ms: int, callback: Callable[[], object]) -> None:
        heapq.heappush(self._due, (self.now_ms + delay_ms, next(self._order), callback))

    def run_for(self, minutes: int) -> None:
        for _ in range(minutes):
            for name, member in self.members.items():
                mark = member.on_air.mark()
                for other in self.members.values():
                    if other is not member:
                        other.on_air.on_mark(name, other.link, mark)
            until_ms = self.now_ms + 60_000
            while self._due and self._due[0][0] <= until_ms:
                self.now_ms, _, callback = heapq.heappop(self._due)
                callback()
            self.now_ms = until_ms

    @property
    def said(self) -> int:
        return sum(member.said for member in self.members.values())


def test_who_have_the_same_say_nothing_of_it() -> None:
    air = Air("anna", "bert", "cleo")
    air.run_for(60)
    assert air.said == 0
    assert {len(member.on_air.mark()) for member in air.members.values()} == {MARK_BYTES}


def test_where_one_has_more_one_speaks_for_each_side_and_all_know_what_they_lack() -> None:
    air = Air("anna", "bert", "cleo", "dora")
    air.members["anna"].ledger.move(7, 3)
    air.run_for(2)
    assert 1 <= air.said <= 2, "those who have the same speak once for all of them"
    for name in ("bert", "cleo", "dora"):
        learnt = air.members[name].learnt
        assert [each.node for each in learnt if each.heard.there] == ["anna"] * len(learnt)
    assert any(member.learnt for member in air.members.values())


def test_what_is_not_settled_is_said_again_in_a_small_part_of_the_links_time() -> None:
    air = Air("anna", "bert")
    air.members["anna"].ledger.move(7, 3)
    air.run_for(60)
    assert 3 <= air.members["anna"].said <= 60 * 60_000 / GAP_MS + 1


def test_while_blocks_still_come_nobody_speaks() -> None:
    air = Air("anna", "bert")
    for height in range(1, 200):
        air.members["anna"].ledger.move(7, height)
        air.members["bert"].ledger.move(8, height)
        air.members["anna"].on_air.mark()
        air.members["bert"].on_air.mark()
        air.members["anna"].on_air.on_mark("bert", air.members["anna"].link, b"else")
        air.now_ms += CALM_MS / 2
    assert air.said == 0


def test_what_is_made_up_is_left_and_a_node_that_loads_says_nothing() -> None:
    air = Air("anna", "bert")
    anna = air.members["anna"]
    anna.on_air.on_said("bert", anna.link, b"\xff" * 60)
    anna.on_air.on_mark("bert", anna.link, b"three")
    assert anna.learnt == []
    anna.loads = True
    assert anna.on_air.mark() == b""
    anna.on_air.on_said("bert", anna.link, air.members["bert"].ledger.beacon().take(Random(1)))
    air.members["bert"].ledger.move(7, 3)
    air.run_for(5)
    assert air.said == 0
