"""Owners of accounts, as light clients: each signs its account's next transaction when an honest witness says that the
one before is final. An honest owner signs one for each slot, and what it signed is durable before it leaves."""

from __future__ import annotations

from collections.abc import Sequence

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.items import Item, TxItem, Unlock
from offgrid_node.protocol.ledger.records import Tx, unlock_digest
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_tools.ledgersim.keys import FEE, SALT, Key, sign_tx
from offgrid_tools.ledgersim.slots.node import Message, Node
from offgrid_tools.ledgersim.slots.world import World

HASTY_ODDS, AGAIN_ODDS = 0.3, 0.25
AHEAD_ODDS = 0.3  # of one who tears its slots
BEYOND_ODDS = 0.1  # of one who tears them, or is hasty: of more than it has, which then never ends by itself


class Owner:
    """`torn_odds`: how often it signs two transactions for one slot, each of which some are told; 0.0: never. `hasty`:
    it asks at bad moments that its slot ends."""

    def __init__(self, world: World, name: str, think_ms: int, *, torn_odds: float, hasty: bool) -> None:
        self.world, self.name, self.own, self.key = world, name, node_id_bytes(name), Key(name)
        self.source = NodeSource(self.own)
        self.torn_odds, self.hasty = torn_odds, hasty
        if torn_odds:
            world.judge.liars.add(self.own)
        self.spending = True
        self.signed: list[TxItem] = []
        self.unlocked: dict[int, None] = {}  # slots that it asked to end
        self._seq = -1  # of the newest transaction that it signed
        self._under_way: list[Message] = []
        self._think_ms = think_ms
        self._round = 0
        self._think_later()

    def stop_spending(self) -> None:
        """From now on it has no more to say than what is not final yet, and says so again without a cut's slowness."""
        self.spending = False
        self._round += 1
        self._think_later()

    def _think_later(self) -> None:
        world, this = self.world, self._round
        world.after(world.rng.randrange(1, 2 * self._think_ms) * world.slowness, lambda: self._think(this))

    def _think(self, this: int) -> None:
        world, rng = self.world, self.world.rng
        if this != self._round:
            return
        world.handled += 1
        self._think_later()
        node = world.nodes[rng.choice(world.honest)]
        if not node.up or world.cut(self.name, node.name):
            return
        next_seq = node.account(self.own).next_seq
        if next_seq > self._seq and self.spending:
            self._sign(node)
        elif next_seq == self._seq and (rng.random() < AGAIN_ODDS or not self.spending):
            for message in self._under_way:  # nobody may have heard of it
                world.carry(self.name, node, message)
        if self.hasty and next_seq == self._seq not in self.unlocked and rng.random() < HASTY_ODDS:
            self._unlock()

    def _sign(self, node: Node) -> None:
        world, rng = self.world, self.world.rng
        account = node.account(self.own)
        room = account.balance_micro - FEE
        if room <= 0:
            return
        self._seq = account.next_seq
        if not self.torn_odds:
            most = 3 * room if self.hasty and rng.random() < BEYOND_ODDS else room // 3
            items = [self._tx(account.next_seq, account.head, 1 + int(rng.random() * most))]
            self.signed.append(items[0])
        else:
            items = self._torn(account, room)
        for item in items:
            world.txs.setdefault((self.own, item.tx.seq), {})[item.digest] = item
        self._under_way = self._send(items)

    def _torn(self, account: Account, room: int) -> list[TxItem]:
        """What no honest owner signs: several for one slot, more than it has, without a fee, or on top of what may
        never be."""
        rng, seq, head = self.world.rng, account.next_seq, account.head
        most = 3 * room if rng.random() < BEYOND_ODDS else room
        amount = room + FEE if rng.random() < BEYOND_ODDS else 1 + int(rng.random() * most)
        items = [self._tx(seq, head, amount, 0 if rng.random() < BEYOND_ODDS else FEE)]
        if rng.random() < self.torn_odds:
            items += [self._tx(seq, head, 1 + int(rng.random() * room)) for _ in range(rng.choice((1, 1, 2)))]
        if rng.random() < AHEAD_ODDS:
            items.append(self._tx(seq + 1, items[0].digest, 1 + int(rng.random() * room)))
        return items

    def _tx(self, seq: int, prev: bytes, amount: int, fee: int = FEE) -> TxItem:
        to = node_id_bytes(self.world.rng.choice(self.world.owners))
        return sign_tx(Tx(self.source, seq, prev, fee, ((to, amount),)))

    def _unlock(self) -> None:
        self.unlocked[self._seq] = None
        self.world.judge.met.unlocks += 1
        digest = unlock_digest(SALT, self.own, self._seq)
        self._under_way += self._send([Unlock(self.source, self._seq, self.key.sign(digest), digest)])

    def _send(self, items: Sequence[Item]) -> list[Message]:
        """One of several to some, another to others."""
        world = self.world
        messages = world.messages(self.own, items)
        world.left(self.own, messages)
        for receiver in world.receivers.values():
            world.carry(self.name, receiver, messages[int(world.rng.random() * len(messages))])
        return messages
