"""One seed of the slots' level: a hostile while, then peace; and what must hold of peace."""

from __future__ import annotations

from offgrid_node.protocol.ids import base32
from offgrid_tools.ledgersim.cuts import draw_sides
from offgrid_tools.ledgersim.judge import Broken, Judge, Place
from offgrid_tools.ledgersim.patience import led_by_liars_ms
from offgrid_tools.ledgersim.slots.cabal import Cabal
from offgrid_tools.ledgersim.slots.liars import Liar
from offgrid_tools.ledgersim.slots.owners import Owner
from offgrid_tools.ledgersim.slots.plan import Plan
from offgrid_tools.ledgersim.slots.world import World
from offgrid_tools.sim.engine import Engine, Trace

LOOK_MS, PEACE_MS = 2_000, 240_000
PER_OWNER_MS = 300  # witnesses of this level compare with one other at a time, and of a thousand owners much is open
TORN_ODDS = 0.4  # of an owner that tears its slots; in a siege it tears each
FRESH_MS, FRESH_LOOKS = 50, 40
LYING_MS = 60_000  # liars go on in peace for so long
SLOWEST = 900  # thousandths of its time that a clock counts
SLOWNESS = 500  # of everybody in a cut of hours


class Play:
    """Raises Broken, naming what does not hold."""

    def __init__(self, seed: int, plan: Plan, trace: Trace | None = None) -> None:
        self.plan = plan
        self.world = world = World(seed, plan.weights, plan.owners, lying=plan.liars, sync_us=plan.sync_us, trace=trace)
        rng = world.rng
        world.latency_ms, world.loss, world.repeats = plan.latency_ms, plan.loss, plan.repeats
        world.crash_odds = plan.crash_odds
        self.liars: list[Liar | Cabal] = [
            Liar(world, name, rng.choice((20, 100, 400)), quiet=plan.siege) for name in world.witnesses[: plan.liars]
        ]
        if plan.siege:
            self.liars.append(Cabal(world, world.witnesses[: plan.liars]))
        self.owners = [
            Owner(
                world,
                name,
                plan.think_ms,
                torn_odds=(1.0 if plan.siege else TORN_ODDS) if index < plan.torn else 0.0,
                hasty=0 <= index - plan.torn < plan.hasty,
            )
            for index, name in enumerate(world.owners)
        ]
        if plan.skews:
            for node in world.nodes.values():
                node.rate = rng.randrange(SLOWEST, 1_100)

    # ---- what is asked of every level

    @property
    def judge(self) -> Judge:
        return self.world.judge

    @property
    def engine(self) -> Engine:
        return self.world.engine

    @property
    def handled(self) -> int:
        return self.world.handled

    @property
    def about(self) -> str:
        plan = self.plan
        drawn = {
            "crashes": plan.crash_odds > 0,
            "cuts": plan.cut_odds > 0,
            "a cut of hours": plan.cut_ms > 0,
            "a siege": plan.siege,
            "a blackout": plan.blackout,
            "clocks are wrong": plan.skews,
            "weights differ": len({*plan.weights}) > 1,
        }
        owners = f"{plan.owners} owners, {plan.torn} of them tear slots, {plan.hasty} are hasty"
        said = "".join(f"; {what}" for what, is_so in drawn.items() if is_so)
        return f"{plan.witnesses} witnesses, {plan.liars} of them lie; {owners}{said}"

    def state(self) -> bytes:
        return b"".join(b"".join(sorted(node.store.dump())) for node in self.world.nodes.values())

    def execute(self) -> None:
        world, plan = self.world, self.plan
        until_ms = plan.hostile_ms
        while world.now_ms < until_ms:
            world.run(world.rng.randrange(1, 400))
            self._disturb()
        if plan.cut_ms:
            self._cut()
            world.slowness = SLOWNESS
            world.run(plan.cut_ms)
            world.slowness = 1
            for node in world.nodes.values():
                node.quicken()
        world.heal()
        if plan.blackout:
            self._black_out()
        self._settle()

    # ---- inside

    def _disturb(self) -> None:
        rng = self.world.rng
        if rng.random() < self.plan.cut_odds:
            if self.plan.siege:
                self._besiege()
            elif rng.random() < 0.6:
                self._cut()
            else:
                self.world.sides = {}

    def _cut(self) -> None:
        world = self.world
        world.sides = draw_sides(world.rng, (*world.witnesses, *world.owners), world.honest)

    def _besiege(self) -> None:
        """Each witness hears some of the others; now and then everybody all."""
        world, rng = self.world, self.world.rng
        odds = rng.choice((0.0, 0.5, 0.8, 0.9, 1.0))
        world.deaf = {(one, other) for one in world.honest for other in world.honest if rng.random() < odds}

    def _black_out(self) -> None:
        """All at once, just after an owner has torn a slot if one does."""
        world = self.world
        for _ in range(FRESH_LOOKS):
            if any(place not in self.judge.disputed and self._is_torn(place) for place in world.txs):
                break
            world.run(FRESH_MS)
        for node in world.nodes.values():
            if node.up:
                node.crash()

    def _settle(self) -> None:
        world = self.world
        for owner in self.owners:
            owner.stop_spending()
        began_ms = world.now_ms
        until_ms = began_ms + PEACE_MS + PER_OWNER_MS * self.plan.owners + self._ballots_ms()
        while world.now_ms < until_ms:
            world.run(LOOK_MS)
            if world.now_ms > began_ms + LYING_MS:
                for liar in self.liars:
                    liar.lying = False
            if not self._unsettled():
                return
        raise Broken(self._unsettled())

    def _ballots_ms(self) -> int:
        """How long it takes after a cut of hours, in which time for a ballot has grown, by the slowest clock."""
        top = max(node.top_ballot() for node in self.world.nodes.values())
        return led_by_liars_ms(self.plan.liars, top) * 1_000 // SLOWEST if top else 0

    def _unsettled(self) -> str:
        """What has not come to rest yet."""
        return self._open_slots() or self._disagreement() or self._unkept() or self._unshown()

    def _open_slots(self) -> str:
        """Torn slots, and those that their owner asked to end, must end: wherever two of one slot are known."""
        for place in self.world.txs:
            if self._is_torn(place):
                return f"slot {place[1]} of {base32(place[0])} is torn and does not end"
        for owner in self.owners:
            for seq in owner.unlocked:
                if (owner.own, seq) not in self.judge.final:
                    return f"{owner.name} asked that its slot {seq} ends, and it does not"
        return ""

    def _is_torn(self, place: Place) -> bool:
        """Whether its turn has come at a node that knows two transactions of it."""
        txs = self.world.txs[place]
        if place in self.judge.final or len(txs) == 1:
            return False
        return any(node.is_torn(place, txs) for node in self.world.nodes.values())

    def _disagreement(self) -> str:
        nodes = [*self.world.nodes.values()]
        books = nodes[0].accounts()
        for node in nodes:
            if not node.up:
                return f"{node.name} is down"
            if node.accounts() != books:
                return f"{node.name} has other balances than {nodes[0].name}"
        for account, balance_micro in self.judge.balances.items():
            if nodes[0].account(account).balance_micro != balance_micro:
                return f"balances are not what the final slots come to at {nodes[0].name}"
        return ""

    def _unshown(self) -> str:
        for node in self.world.nodes.values():
            for account, seq in node.evidence():
                if (account, seq) not in self.judge.shown:
                    return f"{node.name} keeps to itself that slot {seq} of {base32(account)} is torn"
        return ""

    def _unkept(self) -> str:
        """What an honest owner signed is final, or void where it asked that the slot ends; nothing hangs behind what
        is final."""
        for owner in self.owners:
            for item in owner.signed:
                final = self.judge.final.get((item.tx.src, item.tx.seq))
                if final is None or (final != item.digest and item.tx.seq not in owner.unlocked):
                    return f"what {owner.name} signed for its slot {item.tx.seq} is not final"
        hanging = (hangs for node in self.world.nodes.values() if (hangs := node.hanging()))
        return next(hanging, "")
