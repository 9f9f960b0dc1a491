"""Members that keep no rule: they vote for everything, confirm what has no certificate, fork their chains, tell one
thing here and another there, hold blocks back, repeat old ones and sign two transactions for one slot.

What they cannot do is sign for others, or make a block pass whose signature is not its author's.
"""

from __future__ import annotations

from collections.abc import Callable

from google.protobuf.message import Message

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Call
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, seal_block
from offgrid_node.protocol.ledger.heads import Span, encode_authors, encode_heads, encode_spans
from offgrid_node.protocol.ledger.items import Double, Item, Marks, Report, Seen, Statement, TxItem
from offgrid_node.protocol.ledger.records import Tx, noop_digest
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_tools.ledgersim.keys import FEE, SALT, Key, sign_tx
from offgrid_tools.ledgersim.whole.enders import lead_the_end, words_of_the_end
from offgrid_tools.ledgersim.whole.servers import accounts_for, checkpoints_for
from offgrid_tools.ledgersim.whole.world import World

END_ODDS = 0.15  # how often it speaks of the epoch's end, while nobody waits for its word
CHAIN_MAX = 32  # blocks, behind what it would end an epoch with, so that nobody waits for one that was lost
TXS_MAX = 32  # of one slot: what one says of all of them fits into a block


class Liar:
    """A witness, an owner, or both, as the genesis has it."""

    def __init__(self, world: World, name: str, *, equivocates: bool, accomplice: Liar | None = None) -> None:
        """One with an accomplice signs two transactions for one slot again and again, and has each of them told to one
        half of the mesh, by an author who never forks and so is listened to for ever."""
        self.world, self.name, self.own, self.key = world, name, node_id_bytes(name), Key(name)
        self.equivocates = equivocates
        self.orderly = world.rng.random() < 0.7  # its chain is: what it says comes to all at once, and counts
        self.two_faced = equivocates and not self.orderly and world.rng.random() < 0.4
        self.forks = self.two_faced or (not self.orderly and world.rng.random() < 0.5)
        self.accomplice = accomplice
        if accomplice is not None:
            self.forks = self.two_faced = accomplice.forks = accomplice.two_faced = False
            self.orderly = accomplice.orderly = False
        self.silent = False  # it says nothing by itself any more
        self._led = (0, 0)  # epoch and ballot at which others have its word of the epoch's end
        genesis = world.genesis.digest(SALT)
        self._tips = [(0, genesis)]
        self._genesis = genesis
        self._blocks: dict[bytes, CheckedBlock] = {}
        self._chain: list[CheckedBlock] = []  # its own newest ones
        self._txs = world.liars_txs  # they are in league
        self._kept: list[CheckedBlock] = []
        world.liars[name] = self
        world.judge.liars.add(self.own)
        world.after(world.rng.randrange(2_500, 3_500), self.tick)  # once there is a ledger

    # ---- what others send

    def receive(self, sender: str, method: str, request: Message, done: Callable[[Message | Fault], None]) -> None:
        rng = self.world.rng
        match request:
            case ledger_pb2.PushBlocksRequest():
                for block in request.blocks:
                    self._learn(self.world.check(block))
                self._lead()
                done(ledger_pb2.PushBlocksResponse())
            case ledger_pb2.SyncBlocksRequest():
                for old in rng.sample([*self._blocks.values()], min(3, len(self._blocks))):
                    self._send(sender, old)
                if rng.random() < 0.3:
                    return done(Unavailable("not now"))
                answer = self._made_up()
                answer.oldest = answer.epoch = self.world.epoch
                done(answer)
            case ledger_pb2.AskCheckpointsRequest():
                done(ledger_pb2.AskCheckpointsResponse())
                brought = checkpoints_for(self.world, self.name, request.first)
                self.world.carry(
                    self.name, Call("ledger", sender, "PushCheckpoints", brought, None, 0), lambda end: None
                )
            case ledger_pb2.ListEpochAccountsRequest():
                done(accounts_for(self.world, self.name))
        return None

    def _learn(self, block: CheckedBlock) -> None:
        self._blocks[block.digest] = block
        for item in block.items:
            for tx in (
                (item,) if isinstance(item, TxItem) else (item.first, item.second) if isinstance(item, Double) else ()
            ):
                self._txs.setdefault((tx.tx.src, tx.tx.seq), {})[tx.digest] = tx

    def _made_up(self) -> ledger_pb2.SyncBlocksResponse:
        """That all is the same, symbols of no set, heads that nobody has, or nothing."""
        rng, (height, digest) = self.world.rng, self.world.rng.choice(self._tips)
        heads = [(node_id_bytes(name), height + rng.randrange(1, 5)) for name in self.world.names]
        return rng.choice(
            [
                ledger_pb2.SyncBlocksResponse(in_sync=True),
                ledger_pb2.SyncBlocksResponse(symbols=rng.randbytes(16 * 13), items=9, summary=rng.randbytes(16)),
                ledger_pb2.SyncBlocksResponse(heads=encode_heads(heads), yours=digest),
                ledger_pb2.SyncBlocksResponse(),
            ]
        )

    # ---- what it does

    def _lead(self) -> None:
        """At once, for what it proposes must be what others have then."""
        epoch = self.world.epoch
        ballot = self.world.judge.awaited_at_the_end(epoch, self.own)
        if not ballot or self._led == (epoch, ballot):
            return
        self._led = epoch, ballot
        if words := lead_the_end(self.world, ballot):
            self.world.judge.met.usurped += 1
            for own in self._chain if self.orderly else ():
                self._send_all(own, [*self.world.nodes])
            self._tell(words, [*self.world.nodes], epoch=epoch)

    def tick(self) -> None:
        if self.silent:
            return
        rng = self.world.rng
        self.world.after(rng.randrange(100, 1_000) * self.world.slowness, self.tick)
        if rng.random() < 0.2:
            self._gossip()
        if not self.orderly and rng.random() < END_ODDS:
            self._tell(words_of_the_end(self.world, self.name), [*self.world.nodes], epoch=self.world.epoch)
        if self.accomplice is not None and rng.random() < 0.7:
            self._tear(self.accomplice)
            return
        if rng.random() < (0.9 if self.two_faced else 0.4):
            self._show_two_faces()
            return
        items = [*self._statements(), *self._words_above()]
        if self.equivocates and rng.random() < 0.3:
            pair = [self._tx(rng.randrange(1, rng.choice((900_000, 3_000_000)))) for _ in range(2)]
            if rng.random() < 0.5:  # on two branches, to two halves
                self._tell([pair[0], *items], self._half())
                self._tell([pair[1]], self._half())
            else:
                self._tell([*pair, *items], self._half())
        elif items and rng.random() < 0.8:
            self._tell(items, self._half())
        if self._kept and rng.random() < 0.3:
            self._send_all(self._kept.pop(rng.randrange(0, len(self._kept))), self._half())
        if self._blocks and rng.random() < 0.3:  # old ones again, of anybody
            self._send_all(rng.choice([*self._blocks.values()]), self._half())

    def _tear(self, accomplice: Liar) -> None:
        ones = self._half()
        others = [name for name in self.world.nodes if name not in ones]
        for author, to in ((self, ones), (accomplice, others)):
            author._tell([self._tx(self.world.rng.randrange(1, 9)), *author._words_above()], to)

    def _show_two_faces(self) -> None:
        """One transaction and all its approval on one branch to some, another for the same slot to the others."""
        rng, final = self.world.rng, self.world.judge.final
        pairs = [(slot, [*txs.values()]) for slot, txs in self._txs.items() if len(txs) > 1]
        pairs = [(slot, txs) for slot, txs in pairs if slot not in final]
        if self.equivocates and not pairs:
            pairs = [((b"", 0), [self._tx(rng.randrange(1, 900_000)) for _ in range(2)])]
        if not pairs:
            return
        ones = self._half()
        others = [name for name in self.world.nodes if name not in ones]
        tip = rng.choice(self._tips) if self.forks else self._tips[-1]
        for tx, to in zip(rng.choice(pairs)[1], (ones, others), strict=False):
            said = [Statement(confirms, tx.tx.src, tx.tx.seq, 0, tx.digest) for confirms in (False, True)]
            self._tell([tx, *said], to, tip=tip if self.forks else None)

    def _statements(self) -> list[Item]:
        rng, items = self.world.rng, list[Item]()
        slots = [*self._txs.items()]
        for (account, seq), txs in slots[-6:]:
            for digest in txs if rng.random() < 0.7 else [bytes(32)]:
                for confirms in (False, True):
                    if rng.random() < 0.6:
                        items.append(Statement(confirms, account, seq, 0, digest))
        if slots and rng.random() < 0.6:  # in one slot of what belongs to another and is on its way
            (account, seq), txs = rng.choice(slots[-6:])[0], slots[-1][1]
            items += [Statement(False, account, seq, 0, digest) for digest in txs]
        if self.orderly:  # what nobody can take in would be in the way of what it says later
            return items
        if rng.random() < 0.1:
            items.append(Statement(True, rng.randbytes(20), rng.randrange(0, 9), 0, rng.randbytes(32)))
        if (seen := self.world.seen) and rng.random() < 0.3:  # whatever stands there
            items.append(Marks(rng.random() < 0.5, rng.choice(seen), bytes((rng.randrange(1, 256),))))
        if rng.random() < 0.1:
            items.append(Seen(node_id_bytes(rng.choice(self.world.names)), rng.randbytes(32)))
        return items

    def _words_above(self) -> list[Item]:
        """Of disputed slots: reports that hide or make up a certificate, and votes and confirms for anything."""
        rng, items = self.world.rng, list[Item]()
        if self.orderly:  # a block that speaks of ballots which have not come waits for them
            return items
        for (account, seq), txs in [slot for slot in self._txs.items() if len(slot[1]) > 1][-3:]:
            digests = [*txs, noop_digest(SALT, account, seq)]
            for ballot in range(1, rng.randrange(2, 5)):
                if rng.random() < 0.6:
                    at = rng.choice((-1, 0, ballot - 1, ballot - 1))
                    certificate = (at, rng.choice(digests)) if at >= 0 else (0, bytes(32))
                    items.append(Report(account, seq, ballot, *certificate))
                for confirms in (False, True):
                    if rng.random() < 0.5:
                        items.append(Statement(confirms, account, seq, ballot, rng.choice(digests)))
        return items

    def _tx(self, amount: int) -> TxItem:
        rng, final = self.world.rng, self.world.judge.final
        seq, prev = 0, self._genesis
        while (self.own, seq) in final:
            prev, seq = final[self.own, seq], seq + 1
        known = [*self._txs.get((self.own, seq), {}).values()]
        if len(known) == TXS_MAX:
            return rng.choice(known)
        to = node_id_bytes(rng.choice(self.world.names))
        item = sign_tx(Tx(NodeSource(self.own), seq, prev, FEE, ((to, amount),)))
        self._txs.setdefault((self.own, seq), {})[item.digest] = item
        return item

    def _tell(
        self, items: list[Item], to: list[str], tip: tuple[int, bytes] | None = None, epoch: int | None = None
    ) -> None:
        if not items:
            return
        rng = self.world.rng
        height, prev = tip or (rng.choice(self._tips) if self.forks else self._tips[-1])
        parents = tuple({block.digest: 0 for block in rng.sample([*self._blocks.values()], min(2, len(self._blocks)))})
        parents = tuple(parent for parent in parents if parent != prev and not self.orderly)
        now_us = self.world.now().utc_us
        block = seal_block(
            self.own,
            height + 1,
            prev,
            parents,
            items,
            now_us,
            self.key,
            SALT,
            epoch=self._epoch() if epoch is None else epoch,
        )
        if not self.forks:
            self._tips = [(height + 1, block.digest)]
        else:
            self._tips = [*self._tips[-5:], (height + 1, block.digest)]
        self._blocks[block.digest] = block
        self._chain = [*self._chain[1 - CHAIN_MAX :], block]
        if self.orderly:
            self._send_all(block, [*self.world.nodes])
        elif rng.random() < 0.2:
            self._kept.append(block)
        else:
            self._send_all(block, to)

    def _epoch(self) -> int:
        """The newest; now and then one that is over, or one that has not come."""
        rng, epoch = self.world.rng, self.world.epoch
        if not self.world.ending or self.orderly or rng.random() < 0.85:
            return epoch
        return epoch + 1 if rng.random() < 0.3 else rng.randrange(0, epoch + 1)

    def _half(self) -> list[str]:
        return [name for name in self.world.nodes if self.world.rng.random() < 0.5]

    def _send_all(self, block: CheckedBlock, to: list[str]) -> None:
        for name in to:
            self._send(name, block)

    def _gossip(self) -> None:
        """Offers what it never gives, asks for everything again and again, and bids others be silent."""
        rng, authors = self.world.rng, [node_id_bytes(name) for name in self.world.names]
        request = ledger_pb2.PushBlocksRequest(
            announced=encode_heads((author, rng.randrange(1, 99)) for author in authors if rng.random() < 0.5),
            prune=encode_authors(author for author in authors if rng.random() < 0.5),
            graft=encode_authors(author for author in authors if rng.random() < 0.3),
            lacking=encode_spans(Span(author, 1, 999) for author in authors if rng.random() < 0.3),
            leave=rng.random() < 0.1,
        )
        for to in self._half():
            self.world.carry(self.name, Call("ledger", to, "PushBlocks", request, None, 0), lambda end: None)

    def _send(self, to: str, block: CheckedBlock) -> None:
        request = ledger_pb2.PushBlocksRequest()
        request.blocks.add().ParseFromString(block.raw)
        self.world.carry(self.name, Call("ledger", to, "PushBlocks", request, None, 0), lambda end: None)
