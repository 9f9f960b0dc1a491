"""Witnesses that keep no rule: they vote for each of two, confirm what has no certificate, report what is not and hide
what is, tell one thing here and another there, say nothing to some, hold words back and repeat old ones.

What they cannot do is sign for others.
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.items import Item, Report, Statement, TxItem
from offgrid_node.protocol.ledger.records import noop_digest
from offgrid_tools.ledgersim.judge import Place
from offgrid_tools.ledgersim.keys import SALT
from offgrid_tools.ledgersim.slots.node import Message
from offgrid_tools.ledgersim.slots.world import World

KEPT_MAX, SLOTS_MAX = 64, 24
BALLOTS = 4
NOTHING = bytes(32)


class Liar:
    """`eager`: it says at once to each what helps that one on, so honest votes that are split get their quorums."""

    def __init__(self, world: World, name: str, every_ms: int, *, quiet: bool = False) -> None:
        self.world, self.name, self.own = world, name, node_id_bytes(name)
        self.eager = world.rng.random() < 0.7
        self.every_ms = every_ms
        self.lying = not quiet and world.rng.random() < 0.85  # or it says nothing at all
        self._slots: dict[Place, int] = {}  # heard of lately → the highest ballot
        self._kept: list[Message] = []
        world.receivers[name] = self
        world.after(world.rng.randrange(1, every_ms), self._tick)

    def receive(self, message: Message) -> None:
        self.world.handled += 1
        if len(self._kept) < KEPT_MAX:
            self._kept.append(message)
        item = message.item
        match item:
            case TxItem(tx, _, _, digest):
                self._hear((tx.src, tx.seq), 0)
                if self.eager:
                    said = [Statement(confirms, tx.src, tx.seq, 0, digest) for confirms in (False, True)]
                    self._tell(said, self._some(0.5))
            case Statement() | Report():
                self._hear((item.account, item.seq), item.ballot)
                if self.eager and isinstance(item, Statement) and self.world.rng.random() < 0.2:
                    self._tell([item], self._some(0.5))

    def _hear(self, place: Place, ballot: int) -> None:
        if place in self.world.judge.final:
            return
        ballot = max(ballot, self._slots.pop(place, 0))
        self._slots[place] = ballot
        if len(self._slots) > SLOTS_MAX:
            del self._slots[next(iter(self._slots))]

    def _tick(self) -> None:
        world, rng = self.world, self.world.rng
        world.handled += 1
        world.after(rng.randrange(1, 2 * self.every_ms) * world.slowness, self._tick)
        if not self.lying:
            return
        for place in [place for place in self._slots if place in world.judge.final]:
            if rng.random() < 0.7:
                del self._slots[place]
        if self._slots:
            place = rng.choice([*self._slots])
            if rng.random() < 0.4:
                self._two_faces(place)
            else:
                self._tell(self._words(place), self._some(rng.choice((0.3, 0.7, 1.0))))
        if self._kept and rng.random() < 0.5:  # an old word again, whosever it was
            message = self._kept.pop(rng.randrange(0, len(self._kept)))
            for name in self._some(0.5):
                world.carry(self.name, world.receivers[name], message)

    def _two_faces(self, place: Place) -> None:
        """All approval for one to some, and for another to the others, at the ballot where the slot is."""
        world, rng = self.world, self.world.rng
        account, seq = place
        ballot = self._slots[place]
        digests = [*world.txs.get(place, ()), *([noop_digest(SALT, account, seq)] if ballot else [])]
        if not digests:
            return
        ones = self._some(0.5)
        others = [name for name in world.honest if name not in ones]
        chosen = rng.sample(digests, min(2, len(digests)))
        for digest, to in zip(chosen, (ones, others), strict=False):
            said: list[Item] = [Statement(confirms, account, seq, ballot, digest) for confirms in (False, True)]
            if ballot:
                at = rng.randrange(0, ballot)
                said.insert(
                    0, Report(account, seq, ballot, at, digest if at or digest in world.txs[place] else NOTHING)
                )
            self._tell(said, to)

    def _words(self, place: Place) -> list[Item]:
        rng = self.world.rng
        account, seq = place
        top = self._slots[place]
        digests = [*self.world.txs.get(place, ()), noop_digest(SALT, account, seq), NOTHING]
        words: list[Item] = []
        for ballot in {0: None, max(0, top - 1): None, top: None, top + 1: None, rng.randrange(0, BALLOTS): None}:
            if ballot and rng.random() < 0.6:
                at = rng.choice((-1, 0, ballot - 1))
                certificate = (at, rng.choice(digests[:-1])) if at >= 0 else (0, NOTHING)
                words.append(Report(account, seq, ballot, *certificate))
            for confirms in (False, True):
                if rng.random() < 0.5:
                    words.append(Statement(confirms, account, seq, ballot, rng.choice(digests)))
        if rng.random() < 0.2 and len(self._slots) > 1:  # in one slot of what belongs to another
            other = rng.choice([*self._slots])
            words += [Statement(False, account, seq, 0, digest) for digest in self.world.txs.get(other, ())]
        rng.shuffle(words)
        return words[: rng.randrange(1, 9)]

    def _some(self, odds: float) -> list[str]:
        return [name for name in self.world.honest if self.world.rng.random() < odds]

    def _tell(self, items: Sequence[Item], to: list[str]) -> None:
        world = self.world
        if not self.lying or not to:
            return
        messages = world.messages(self.own, items)
        world.left(self.own, messages)
        for name in to:
            for message in messages:
                world.carry(self.name, world.receivers[name], message)
