"""What liars say of an epoch's end: they propose what is not so, and vote for several of these; they report and confirm
before anybody wishes it; they seal what nobody has agreed on; they order committees without being asked."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.checkpoints import NO_ORDER, ORDER_KIND, Order, Target, Witnesses, cut_account
from offgrid_node.protocol.ledger.cuts import NotYet
from offgrid_node.protocol.ledger.items import Cut, Item, OrderItem, Report, Seal, Statement, Wish
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.signing import digest_of
from offgrid_tools.ledgersim.keys import SALT, Key
from offgrid_tools.ledgersim.whole.world import World


def sign_order(ledger: bytes, issuer: str, epoch: int, witnesses: Witnesses, created_us: int) -> OrderItem:
    order = Order(ledger, node_id_bytes(issuer), 0, epoch, witnesses, created_us)
    body = order.encode()
    digest = digest_of(ORDER_KIND, SALT, body)
    return OrderItem(order, body, Key(issuer).sign(digest), digest)


def leads_the_end(world: World, liar: bytes) -> bool:
    """Whether honest witnesses wait for what this one would end the epoch with."""
    epoch = world.epoch
    top = world.judge.ballot_of_the_end(epoch)
    committee, account = world.judge.committee(epoch), cut_account(world.genesis.digest(SALT), epoch, SALT)
    return top > 0 and committee.leader_of(account, 0, top) == committee.bit_of(liar)


def words_of_the_end(world: World, liar: str) -> list[Item]:
    """A handful of lies, for a block of the newest epoch."""
    rng, epoch = world.rng, world.epoch
    ledger = world.genesis.digest(SALT)
    account = cut_account(ledger, epoch, SALT)
    committee = world.judge.committee(epoch)
    words: list[Item] = [Wish()] if rng.random() < 0.5 else []
    leads_now = leads_the_end(world, node_id_bytes(liar))
    if (leads_now or rng.random() < 0.3) and (cut := _wrong(world)) is not None:
        world.cuts.setdefault(epoch, {})[cut.checkpoint.digest(SALT)] = cut
        words.append(cut)
    known = [*world.cuts.get(epoch, {})]
    top = world.judge.ballot_of_the_end(epoch)
    ballots = {max(1, top): None} if leads_now or rng.random() < 0.9 else {top + 1: None}
    for ballot in ballots:
        leads = committee.leader_of(account, 0, ballot) == committee.bit_of(node_id_bytes(liar))
        if rng.random() < 0.5:
            at = rng.randrange(1, ballot) if ballot > 1 and known and rng.random() < 0.5 else 0
            words.append(Report(account, 0, ballot, at, rng.choice(known) if at else bytes(32)))
        if known and (leads or rng.random() < 0.3):
            digest = known[-1] if leads else rng.choice(known)
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
    """What some honest node would propose, and has not said; in most cases with one thing wrong in it."""
    rng = world.rng
    node = world.nodes[rng.choice([*world.nodes])]
    wrong = rng.randrange(0, 8)
    try:
        cut = node.proposal(without=wrong == 0, extra=_uncertified(world) if wrong == 1 else None)
    except NotYet:
        return None
    body = cut.checkpoint
    if body.epoch != world.epoch:
        return None
    if wrong == 2:
        return replace(cut, checkpoint=replace(body, accounts=rng.randbytes(32)))
    if wrong == 3 and body.fees_micro:
        return replace(cut, checkpoint=replace(body, fees_micro=body.fees_micro - 1))
    if wrong == 4:
        return replace(cut, checkpoint=replace(body, witnesses=_other_witnesses(rng, body.witnesses)))
    if wrong == 5:
        return replace(cut, checkpoint=replace(body, order=NO_ORDER if any(body.order) else rng.randbytes(32)))
    if wrong == 6:
        return replace(cut, checkpoint=replace(body, heads=rng.randbytes(32)))
    return cut


def _other_witnesses(rng: Random, witnesses: Witnesses) -> Witnesses:
    """One is gone, or weighs more."""
    place = rng.randrange(0, len(witnesses))
    node, weight = witnesses[place]
    changed = () if len(witnesses) > 1 and rng.random() < 0.7 else ((node, 2 * weight),)
    return (*witnesses[:place], *changed, *witnesses[place + 1 :])


def _uncertified(world: World) -> Target | None:
    """A transaction that is signed, and that no quorum has voted for."""
    final = world.judge.final
    for (account, seq), txs in world.liars_txs.items():
        if (account, seq) not in final and (not seq or (account, seq - 1) in final):
            for digest in txs:
                if all(what != digest for _, what in world.judge.certified((account, seq))):
                    return Target(account, seq, (digest,))
    return None
