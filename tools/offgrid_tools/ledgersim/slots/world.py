"""The network between witnesses and owners of the slots' level: it loses, repeats and reorders messages, and is cut."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Protocol

from offgrid_node.protocol.ids import base32, node_id_bytes
from offgrid_node.protocol.ledger.items import Item, TxItem
from offgrid_node.protocol.ledger.records import LedgerGenesis
from offgrid_tools.ledgersim.judge import Broken, Judge, Place
from offgrid_tools.ledgersim.keys import FEE, SALT, START_MICRO, name_of
from offgrid_tools.ledgersim.slots.node import Message, Node
from offgrid_tools.sim.engine import MS, Engine, Trace


class Receiver(Protocol):
    """A witness, honest or not."""

    name: str

    def receive(self, message: Message) -> None: ...


class World:
    """The first `lying` witnesses are nobody's until `liars` have them. Owners are no witnesses: each has an account,
    and signs what is in it."""

    def __init__(
        self, seed: int, weights: Sequence[int], owners: int, *, lying: int = 0, sync_us: int, trace: Trace | None
    ) -> None:
        self.engine = Engine(seed, trace)
        self.rng = self.engine.rng
        self.handled = 0  # messages and timers, each handled by one node
        self.sync_us = sync_us  # what a commit takes
        self.latency_ms = (1, 5)
        self.loss = self.repeats = self.crash_odds = 0.0
        self.sides: dict[str, int] = {}
        self.deaf: set[tuple[str, str]] = set()  # what the first says the second does not hear
        self.slowness = 1  # of all who do something again and again: hours go by fast when little happens
        names = [name_of(number) for number in range(len(weights) + owners)]
        self.witnesses, self.owners = names[: len(weights)], names[len(weights) :]
        self.honest = self.witnesses[lying:]
        self.genesis = LedgerGenesis(
            names[0],
            tuple(zip(self.witnesses, weights, strict=True)),
            tuple((name, START_MICRO) for name in self.owners),
            FEE,
            1,
        )
        self.root = self.genesis.digest(SALT)
        self.judge = Judge(self.genesis)
        self.judge.liars.update(node_id_bytes(name) for name in self.witnesses[:lying])
        self.txs: dict[Place, dict[bytes, TxItem]] = {}  # what owners have signed, by slot
        self._numbers = itertools.count()
        self._durable: set[int] = set()
        self.nodes: dict[str, Node] = {}
        self.receivers: dict[str, Receiver] = {}
        for name in self.honest:
            self.nodes[name] = self.receivers[name] = Node(self, name)

    # ---- time

    @property
    def now_ms(self) -> int:
        return self.engine.now_us // MS

    def after(self, delay_ms: int, action: Callable[[], None]) -> None:
        self.engine.after(delay_ms * MS, action)

    def run(self, for_ms: int) -> None:
        self.engine.run_until(self.engine.now_us + for_ms * MS)

    # ---- messages

    def messages(self, author: bytes, items: Iterable[Item]) -> list[Message]:
        return [Message(next(self._numbers), author, item) for item in items]

    def durable(self, node: Node, messages: Sequence[Message]) -> None:
        """A witness has committed what it says."""
        for message in messages:
            self._durable.add(message.number)
            self.engine.note(node.tag, message.item.encode())
        self.judge.said(node.own, [message.item for message in messages])

    def left(self, author: bytes, messages: Sequence[Message]) -> None:
        """These leave an owner, or somebody who keeps no rule."""
        self.judge.said(author, [message.item for message in messages])

    def spread(self, node: Node, message: Message) -> None:
        """A witness tells all others."""
        if message.number not in self._durable:
            raise Broken(f"what {base32(message.author)} says is on its way before it is durable there")
        for receiver in self.receivers.values():
            if receiver is not node:
                self.carry(node.name, receiver, message)

    def carry(self, sender: str, receiver: Receiver, message: Message) -> None:
        random = self.rng.random
        if self.loss and random() < self.loss:
            self.judge.met.lost += 1
            return
        if (self.sides or self.deaf) and self.cut(sender, receiver.name):
            self.judge.met.cut_off += 1
            return
        least, most = self.latency_ms
        self.engine.after(least * MS + int(random() * (most - least) * MS), partial(receiver.receive, message))
        if self.repeats and random() < self.repeats:
            self.judge.met.repeated += 1
            self.engine.after(int((1 + random()) * most * MS), partial(receiver.receive, message))

    def cut(self, one: str, other: str) -> bool:
        return self.sides.get(one, 0) != self.sides.get(other, 0) or (one, other) in self.deaf

    # ---- what happens

    def heal(self) -> None:
        self.loss = self.repeats = self.crash_odds = 0.0
        self.latency_ms = (1, 20)
        self.sides.clear()
        self.deaf.clear()
