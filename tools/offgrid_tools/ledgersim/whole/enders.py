"""What liars say of an epoch's end: they propose what is not so, and vote for several of these; they report and confirm
before anybody wishes it; they seal what nobody has agreed on; they order committees without being asked."""

from __future__ import annotations

from contextlib import suppress
from random import Random

from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import seal_block
from offgrid_node.protocol.ledger.checkpoints import ORDER_KIND, Order, Target, Witnesses, cut_account
from offgrid_node.protocol.ledger.commands import PushBlocks
from offgrid_node.protocol.ledger.cuts import NotYet
from offgrid_node.protocol.ledger.items import Cut, Item, OrderItem, Report, Seal, Statement, Wish
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.ledgersim.keys import SALT, Key
from offgrid_tools.ledgersim.whole.node import Node
from offgrid_tools.ledgersim.whole.proposals import proposal, unordered
from offgrid_tools.ledgersim.whole.world import World


def sign_order(ledger: bytes, issuer: str, epoch: int, witnesses: Witnesses, created_us: int) -> OrderItem:
    order = Order(ledger, node_id_bytes(issuer), 0, epoch, witnesses, created_us)
    body = order.encode()
    digest = digest_of(ORDER_KIND, SALT, body)
    return OrderItem(order, body, Key(issuer).sign(digest), digest)


class Former:
    """Who was an admin goes on to order, in blocks of its own that any node may be brought."""

    def __init__(self, world: World) -> None:
        self._world, self._own = world, node_id_bytes(world.deputy)
        self._height, self._head = 0, world.genesis.digest(SALT)
        world.judge.liars.add(self._own)

    def say(self, item: OrderItem) -> None:
        world, self._height = self._world, self._height + 1
        key = Key(world.deputy)
        block = seal_block(
            self._own, self._height, self._head, (), [item], world.now().utc_us, key, SALT, epoch=world.epoch
        )
        self._head = block.digest
        world.left(ledger_pb2.Block.FromString(block.raw))
        for node in world.honest():
            node.ask(PushBlocks(world.deputy, (block,)))


def lead_the_end(world: World, ballot: int) -> list[Item]:
    """What ends the epoch at the ballot that it leads if honest witnesses vote for it."""
    cut = _wrong(world)
    if cut is None:
        return []
    account = cut_account(cut.checkpoint.ledger, cut.checkpoint.epoch, SALT)
    digest = cut.checkpoint.digest(SALT)
    world.cuts.setdefault(cut.checkpoint.epoch, {})[digest] = cut
    said = [Statement(confirms, account, 0, ballot, digest) for confirms in (False, True)]
    return [Report(account, 0, ballot, 0, bytes(32)), cut, *said]


def words_of_the_end(world: World, liar: str) -> list[Item]:
    """A handful of lies, for a block of the newest epoch."""
    rng, epoch = world.rng, world.epoch
    ledger = world.genesis.digest(SALT)
    account = cut_account(ledger, epoch, SALT)
    words: list[Item] = [Wish()] if rng.random() < 0.5 else []
    if rng.random() < 0.3 and (cut := _wrong(world)) is not None:
        world.cuts.setdefault(epoch, {})[cut.checkpoint.digest(SALT)] = cut
        words.append(cut)
    known = [*world.cuts.get(epoch, {})]
    top = world.judge.ballot_of_the_end(epoch)
    ballot = max(1, top) if rng.random() < 0.9 else top + 1
    if rng.random() < 0.5:
        at = rng.randrange(1, ballot) if ballot > 1 and known and rng.random() < 0.5 else 0
        words.append(Report(account, 0, ballot, at, rng.choice(known) if at else bytes(32)))
    if known and rng.random() < 0.3:
        digest = rng.choice(known)
        words += [Statement(confirms, account, 0, ballot, digest) for confirms in (False, True)]
    if rng.random() < 0.1:
        digest = rng.choice([*known, rng.randbytes(32)])
        final = Final(ledger, account, 0, digest, epoch)
        words.append(Seal(epoch, digest, Key(liar).sign(final.digest(SALT))))
    if rng.random() < 0.3:
        witnesses = ((liar, 1_000), *(each for each in world.genesis.witnesses[:2] if each[0] != liar))
        words.append(sign_order(ledger, liar, epoch + 1, witnesses, world.now().utc_us))
    return words


def _wrong(world: World) -> Cut | None:
    """What some honest node would propose, and has not said; in most cases with one thing wrong in it. None of one that
    does not know of the ledger yet."""
    rng = world.rng
    node = world.nodes[rng.choice([*world.nodes])]
    wrong = rng.choice((0, 1, 1, 1, 2, 3, 4, 5, 6, 7, 7, 8))
    try:
        sound = node.machine, node.now()
        cut = _uncertified(world, node) if wrong == 1 else proposal(*sound, without=wrong == 0, beyond=wrong == 7)
    except NotYet:
        return None
    body = cut.checkpoint
    if body.epoch != world.epoch or not body.ledger:
        return None
    if any(body.order) and wrong in (3, 4, 5, 6):
        return unordered(node.machine, node.now())
    if wrong == 2:
        return replace(cut, checkpoint=replace(body, accounts=rng.randbytes(32)))
    if wrong == 3 and body.fees_micro:
        return replace(cut, checkpoint=replace(body, fees_micro=body.fees_micro - 1))
    if wrong == 4:
        return replace(cut, checkpoint=replace(body, witnesses=_other_witnesses(rng, body.witnesses)))
    if wrong == 5:
        return replace(cut, checkpoint=replace(body, order=rng.randbytes(32)))
    if wrong == 6:
        return replace(cut, checkpoint=replace(body, heads=rng.randbytes(32)))
    return cut


def _uncertified(world: World, node: Node) -> Cut:
    """With a transaction that is signed and that no quorum has voted for, if this node knows one. Raises NotYet."""
    final = world.judge.final
    for (account, seq), txs in [*world.liars_txs.items()][::-1]:
        if (account, seq) not in final and (not seq or (account, seq - 1) in final):
            for digest in txs:
                if all(what != digest for _, what in world.judge.certified((account, seq))):
                    with suppress(NotYet):
                        return proposal(node.machine, node.now(), extra=Target(account, seq, (digest,)))
    return proposal(node.machine, node.now())


def _other_witnesses(rng: Random, witnesses: Witnesses) -> Witnesses:
    """One is gone, or weighs more."""
    place = rng.randrange(0, len(witnesses))
    node, weight = witnesses[place]
    changed = () if len(witnesses) > 1 and rng.random() < 0.7 else ((node, 2 * weight),)
    return (*witnesses[:place], *changed, *witnesses[place + 1 :])
