"""One seed of the slots' level: a hostile while, then peace; and what must hold of peace."""

from __future__ import annotations

from offgrid_node.protocol.ids import base32
from offgrid_tools.ledgersim.cuts import draw_sides
from offgrid_tools.ledgersim.judge import Broken, Judge
from offgrid_tools.ledgersim.slots.liars import Liar
from offgrid_tools.ledgersim.slots.owners import Owner
from offgrid_tools.ledgersim.slots.plan import Plan
from offgrid_tools.ledgersim.slots.world import World
from offgrid_tools.sim.engine import Engine, Trace

LOOK_MS, PEACE_MS = 2_000, 240_000
LYING_MS = 60_000  # liars go on in peace for so long
SLOWNESS = 100  # of everybody in a cut of hours


class Play:
    """Raises Broken, naming what does not hold."""

    def __init__(self, seed: int, plan: Plan, trace: Trace | None = None) -> None:
        self.plan = plan
        self.world = world = World(seed, plan.weights, plan.owners, lying=plan.liars, sync_us=plan.sync_us, trace=trace)
        rng = world.rng
        world.latency_ms, world.loss, world.repeats = plan.latency_ms, plan.loss, plan.repeats
        world.crash_odds = plan.crash_odds
        self.liars = [Liar(world, name, rng.choice((20, 100, 400))) for name in world.witnesses[: plan.liars]]
        self.owners = [
            Owner(world, name, plan.think_ms, tears=index < plan.torn, hasty=0 <= index - plan.torn < plan.hasty)
            for index, name in enumerate(world.owners)
        ]
        if plan.skews:
            for node in world.nodes.values():
                node.rate = rng.randrange(900, 1_100)

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
        world.heal()
        if plan.blackout:
            for node in world.nodes.values():
                if node.up:
                    node.crash()
        self._settle()

    # ---- inside

    def _disturb(self) -> None:
        rng = self.world.rng
        if rng.random() < self.plan.cut_odds:
            if rng.random() < 0.6:
                self._cut()
            else:
                self.world.sides = {}

    def _cut(self) -> None:
        world = self.world
        world.sides = draw_sides(world.rng, (*world.witnesses, *world.owners), world.honest)

    def _settle(self) -> None:
        world = self.world
        for owner in self.owners:
            owner.spending = False
        began_ms = world.now_ms
        while world.now_ms < began_ms + PEACE_MS:
            world.run(LOOK_MS)
            if world.now_ms > began_ms + LYING_MS:
                for liar in self.liars:
                    liar.lying = False
            if not self._unsettled():
                return
        raise Broken(self._unsettled())

    def _unsettled(self) -> str:
        """What has not come to rest yet."""
        return self._open_slots() or self._disagreement() or self._unkept()

    def _open_slots(self) -> str:
        """Torn slots, and those that their owner asked to end, must end: wherever two of one slot are known."""
        nodes, final = [*self.world.nodes.values()], self.judge.final
        for place, txs in self.world.txs.items():
            if place not in final and len(txs) > 1 and any(node.is_torn(place, txs) for node in nodes):
                return f"slot {place[1]} of {base32(place[0])} is torn and does not end"
        for owner in self.owners:
            for seq in owner.unlocked:
                if (owner.own, seq) not in final:
                    return f"{owner.name} asked that its slot {seq} ends, and it does not"
        return ""

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
