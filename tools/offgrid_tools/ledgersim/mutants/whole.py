"""Planted bugs of whole machines: wallets, bookings, blocks and their gossip, restores."""

from __future__ import annotations

from typing import Any

from offgrid_node.protocol.ledger.chains import TELL_SEEN, Chains
from offgrid_node.protocol.ledger.gossip import Gossip
from offgrid_node.protocol.ledger.intake import Intake
from offgrid_node.protocol.ledger.lanes import Lanes
from offgrid_node.protocol.ledger.learning import Learning
from offgrid_node.protocol.ledger.orphans import Orphans
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.wallet import Wallet
from offgrid_node.protocol.ledger.witness import Witness
from offgrid_tools.ledgersim.mutants.planted import Planted
from offgrid_tools.ledgersim.whole.node import Node
from offgrid_tools.sim.mutants.holds import HOLD_MUTANTS
from offgrid_tools.sim.mutants.patches import Patch, Sound, after, never


def _told_first(sound: Sound) -> Sound:
    def commit(self: Any, effects: Any) -> None:
        self._tell(effects)
        sound(self, effects)

    return commit


def _one_lower(chains: Any) -> None:
    for author in chains._authors.values():
        author.height = max(0, author.height - 1)


def _whatever_it_leans_on(sound: Sound) -> Sound:
    def add(self: Any, block: Any, sender: str, missing: Any, by_name: Any, now_ms: int) -> None:
        return None

    return add


def _as_the_newest(sound: Sound) -> Sound:
    def freeze(self: Any, name: bytes, height: int) -> None:
        sound(self, name, height)
        self._authors[name].tell = TELL_SEEN

    return freeze


def _as_if_enough(sound: Sound) -> Sound:
    return lambda self, now_ms: (sound(self, now_ms), self._greet(self._epochs.committee.all))[0]


def _any_signature(sound: Sound) -> Sound:
    def sign(self: Any, *args: Any, **kwargs: Any) -> Any:
        item = sound(self, *args, **kwargs)
        self._in_flight.clear()
        return item

    return sign


def _not_durable(sound: Sound) -> Sound:
    def signed(self: Any, row: Any, digest: bytes) -> None:
        del self._queues[row.src][row.number]
        self._queued[row.src] -= sum(output.amount_micro for output in row.outputs) + row.fee_micro
        self._waiting -= 1

    return signed


def _other_author(sound: Sound) -> Sound:
    def on_item(self: Any, item: Any, author: bytes, bit: int, sender: str, now: Any) -> None:
        sound(self, item, author, self._epochs.committee.all if bit else 0, sender, now)

    return on_item


MUTANTS: dict[str, Planted] = {
    "told-before-commit": Planted(
        "blocks leave before what they say is durable", (Patch(Node, "_commit", _told_first),), level="whole"
    ),
    "no-anti-entropy": Planted(
        "what a push did not bring is never asked for", (Patch(Gossip, "on_time", never(None)),), level="whole"
    ),
    "blocks-unreconciled": Planted(
        "nodes never find out what the other lacks", (Patch(Gossip, "_meet", never(None)),), level="whole"
    ),
    "in-flight-forgotten": Planted(
        "a restarted owner signs its slot anew",
        (Patch(Lanes, "load", after(lambda lanes: lanes._in_flight.clear())), Patch(Witness, "standing", never(None))),
        level="whole",
    ),
    "in-flight-ignored": Planted(
        "an owner signs its next transaction while one is under way",
        (Patch(Lanes, "sign", _any_signature), Patch(Witness, "standing", never(None))),
        level="whole",
    ),
    "transfer-waits-again": Planted(
        "that a transfer is signed is in no row: a restarted owner signs it again",
        (Patch(Wallet, "_signed", _not_durable),),
        level="whole",
    ),
    **{name: Planted(bug.says, bug.patches, level="whole") for name, bug in HOLD_MUTANTS.items()},
    "chain-begins-anew": Planted(
        "a restarted author forgets its newest block", (Patch(Chains, "load", after(_one_lower)),), level="whole"
    ),
    "orphans-dropped": Planted(
        "a block that comes before what it leans on is dropped, and that is never asked for",
        (Patch(Orphans, "add", _whatever_it_leans_on),),
        level="whole",
    ),
    "fork-accepted": Planted(
        "two blocks at one height freeze nobody", (Patch(Intake, "_on_fork", never(None)),), level="whole"
    ),
    "fork-evidence-kept-back": Planted(
        "who freezes an author does not show why", (Patch(Chains, "freeze", _as_the_newest),), level="whole"
    ),
    "seen-unsaid": Planted(
        "nobody says how far a frozen author had come",
        (Patch(Intake, "tell_of_forks", never(None)),),
        level="whole",
        unseen="parents of others' blocks name what lies beyond a fork too, and who meets both branches finds it out "
        "by itself: test_intake.py holds it",
    ),
    "seen-ignored": Planted(
        "blocks beside a chain are never told of",
        (Patch(Chains, "take_untold", never([])),),
        level="whole",
        unseen="parents of others' blocks name them too: test_intake.py holds it",
    ),
    "restored-speaks-at-once": Planted(
        "a witness that came back from an old disk votes before anybody has shown what it said",
        (Patch(Voice, "on_time", _as_if_enough), Patch(Learning, "on_time", lambda sound: _learnt_at_once)),
        level="whole",
    ),
    "votes-count-for-all": Planted(
        "one witness' statement counts for all of them", (Patch(Intake, "_on_item", _other_author),), level="whole"
    ),
    "never-mute": Planted("what is found out makes nobody mute", (Patch(Voice, "mute", never(None)),), level="whole"),
}


def _learnt_at_once(self: Any, now_ms: int) -> bool:
    was, self.at_work = self.at_work, False
    return bool(was)
