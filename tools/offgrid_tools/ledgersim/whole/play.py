"""One seed of the whole level: a hostile while, then peace; and what must hold of peace."""

from __future__ import annotations

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.checkpoints import Witnesses
from offgrid_node.protocol.ledger.records import Tx
from offgrid_node.protocol.ledger.sources import HoldSource, HoldTerms
from offgrid_node.protocol.ledger.tables import BOOKINGS, GIVEN, TXS
from offgrid_node.protocol.ledger.views import Views
from offgrid_node.storage.memory import MemoryStore
from offgrid_tools.ledgersim.cuts import draw_sides
from offgrid_tools.ledgersim.judge import Broken, Judge
from offgrid_tools.ledgersim.keys import SALT, START_MICRO
from offgrid_tools.ledgersim.patience import led_by_liars_ms
from offgrid_tools.ledgersim.weights import one_decides
from offgrid_tools.ledgersim.whole.enders import Former, sign_order
from offgrid_tools.ledgersim.whole.liars import Liar
from offgrid_tools.ledgersim.whole.node import RESTORE_MS, Node
from offgrid_tools.ledgersim.whole.plan import Plan
from offgrid_tools.ledgersim.whole.world import World
from offgrid_tools.sim.engine import Engine, Trace

OPEN_MS, PEACE_MS, LOOK_MS = 2_500, 120_000, 4_000
TORN_MS = 60_000  # liars go on in peace: so long a slot with two transactions may stay open, but for what they lead
CUT_PAYMENTS, SLOWNESS = 6, 50  # while the mesh is cut for hours; liars take their time then
SLEPT_EPOCHS = 3  # blocks of the first are gone by then
LIED_TO_MS = 20_000
LEAP_US = 86_400_000_000  # of a wall clock, at most


class Play:
    """Raises Broken, naming what does not hold."""

    def __init__(self, seed: int, plan: Plan, trace: Trace | None = None) -> None:
        self.plan = plan
        self.world = world = World(
            seed,
            plan.witnesses,
            plan.observers,
            lying=plan.liars,
            weights=plan.weights,
            epoch_ms=plan.epoch_ms,
            trace=trace,
        )
        self._asked = 0
        self._dismisses = False
        self._former = Former(world)
        self._old: tuple[Node, MemoryStore] | None = None
        self._sleeper = world.nodes[world.names[plan.witnesses]] if plan.sleeper else None
        world.latency_ms = plan.latency_ms
        self._bring_liars()
        if plan.skews:
            for node in world.nodes.values():
                node.rate = world.rng.randrange(900, 1_100)
                node.skew_us = world.rng.randrange(-LEAP_US, LEAP_US)

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
            "an owner tears its slots": plan.tearing,
            "an owner lies": plan.lying_owner,
            "an owner is away": plan.sleeper,
            "one comes back from an old disk": plan.comeback,
            "clocks are wrong": plan.skews,
            "a cut of hours": plan.cut_ms > 0,
            "epochs end": plan.epoch_ms > 0,
            "crashes": plan.crash_odds > 0,
            "weights differ": len({*plan.weights}) > 1,
        }
        said = ", ".join(what for what, is_so in drawn.items() if is_so)
        return f"{plan.witnesses} witnesses, {plan.liars} of them lie" + (f"; {said}" if said else "")

    def state(self) -> bytes:
        return b"".join(b"".join(sorted(node.store.dump())) for node in self.world.honest())

    def execute(self) -> None:
        world, plan = self.world, self.plan
        world.run(50)
        world.open()
        world.run(OPEN_MS)
        world.loss, world.repeats, world.crash_odds = plan.loss, plan.repeats, plan.crash_odds
        if self._sleeper is not None:
            self._sleeper.crash()
        until_ms = world.now_ms + plan.hostile_ms
        while world.now_ms < until_ms:
            world.run(world.rng.randrange(1, 400))
            self._disturb()
        if plan.cut_ms:
            self._cut()
            world.slowness = SLOWNESS
            for _ in range(CUT_PAYMENTS):
                world.run(plan.cut_ms // CUT_PAYMENTS)
                self._spend()
            world.slowness = 1
        if self._old is not None:
            node, store = self._old
            node.restore(store, knowing=plan.knowing)
            world.run(RESTORE_MS + world.rng.randrange(10, 3_000))
        world.heal()
        if self._sleeper is not None:
            self._awake(self._sleeper)
        self._settle()

    # ---- a hostile while

    def _bring_liars(self) -> None:
        world, plan = self.world, self.plan
        for name in world.names[: plan.liars]:
            Liar(world, name, equivocates=world.rng.random() < 0.5)
        if plan.tearing:
            owner, accomplice = world.names[plan.witnesses : plan.witnesses + 2]
            del world.nodes[owner], world.nodes[accomplice]
            Liar(world, owner, equivocates=True, accomplice=Liar(world, accomplice, equivocates=False))
        elif plan.lying_owner:
            owner = world.names[plan.witnesses]
            del world.nodes[owner]
            Liar(world, owner, equivocates=True)

    def _spend(self) -> Node:
        world, rng = self.world, self.world.rng
        spender = world.nodes[rng.choice([*world.nodes])]
        spender.transfer(rng.choice(world.names), rng.randrange(1, START_MICRO // 3), request_id=f"r{self._asked}")
        self._asked += 1
        return spender

    def _cut(self) -> None:
        world = self.world
        honest = [name for name in world.names[: self.plan.witnesses] if name in world.nodes]
        world.sides = draw_sides(world.rng, world.names, honest)

    def _disturb(self) -> None:
        world, rng = self.world, self.world.rng
        spender = self._spend()
        if rng.random() < 0.1:
            world.nodes[rng.choice([*world.nodes])].unlock()
        if rng.random() < 0.1:
            if rng.random() < 0.6:
                self._cut()
            else:
                world.sides = {}
        if rng.random() < 0.3:
            payee = rng.choice(world.names)
            if spender.up:
                world.cost(spender.node_id, f"j-{self._asked}", payee, rng.randrange(0, 5_000))
        if self.plan.epoch_ms:
            self._move_on()
        if self.plan.skews and rng.random() < 0.1:
            world.nodes[rng.choice([*world.nodes])].skew_us += rng.randrange(-LEAP_US, LEAP_US)
        if self.plan.comeback and self._old is None and rng.random() < 0.3:
            node = world.nodes[world.names[self.plan.liars]]
            self._old = node, node.store.copy()

    def _move_on(self) -> None:
        """Owners of witnesses wish the epoch to end; admins order another committee, one of the two is dismissed."""
        world, rng = self.world, self.world.rng
        if rng.random() < 0.1:
            for node in world.nodes.values():
                node.end_epoch()
        root = world.genesis.digest(SALT)
        if rng.random() < 0.1:
            admin = world.nodes[world.genesis.issuer]
            now_us = admin.now().utc_us
            issuer = world.deputy if not self._dismisses and rng.random() < 0.4 else admin.node_id
            admin.order(sign_order(root, issuer, admin.epoch + 1, self._other_committee(), max(0, now_us)))
        if not self._dismisses and rng.random() < 0.15:
            self._dismisses = True
            world.dismiss()
        if world.dismissed and rng.random() < 0.3:
            order = sign_order(root, world.deputy, world.epoch + 1, self._other_committee(), world.now().utc_us)
            self._former.say(order)

    def _awake(self, node: Node) -> None:
        """It comes back once nobody has the blocks that it lacks."""
        world = self.world
        for _ in range(LOOK_MS, PEACE_MS, LOOK_MS):
            if world.epoch >= SLEPT_EPOCHS:
                break
            for other in world.nodes.values():
                other.end_epoch()
            world.run(LOOK_MS)
        node.start()
        if world.rng.random() < 0.7:  # it meets liars alone at first
            world.sides = dict.fromkeys((node.node_id, *world.liars), 1)
            world.run(LIED_TO_MS)
            world.sides.clear()
        for _ in range(LOOK_MS, PEACE_MS, LOOK_MS):
            world.run(LOOK_MS)
            if node.epoch >= SLEPT_EPOCHS:
                world.judge.met.awoken += 1
                return
        raise Broken(f"{node.node_id} was away, and is in epoch {node.epoch} still, others in {world.epoch}")

    def _other_committee(self) -> Witnesses:
        """Some of the witnesses and some others; those that keep no rule weigh less than a third together."""
        world, rng, plan = self.world, self.world.rng, self.plan
        faulty = world.names[: plan.liars + plan.comeback]
        sound = [name for name, node in world.nodes.items() if name not in faulty and node is not self._sleeper]
        chosen = rng.sample(sound, rng.randrange(3, len(sound) + 1))
        kept = [name for name in faulty if rng.random() < 0.7]
        weights = {name: rng.choice((250, 1_000, 1_000, 4_000)) for name in (*kept, *chosen)}
        while 3 * sum(weights[name] for name in kept) >= sum(weights.values()):
            weights.update({name: 2 * weights[name] for name in chosen})
        if one_decides(weights.values(), sum(weights[name] for name in kept)):
            weights.update(dict.fromkeys(chosen, max(weights.values())))
        names = [*weights]
        rng.shuffle(names)
        return tuple((name, weights[name]) for name in names)

    # ---- peace

    def _settle(self) -> None:
        world = self.world
        world.run(LOOK_MS)
        torn: dict[tuple[bytes, int], int] = {}
        led_ms = led_by_liars_ms(self.plan.liars)
        silent_ms = world.now_ms + PEACE_MS + led_ms
        until_ms = silent_ms + TORN_MS + led_ms
        while world.now_ms < until_ms:
            world.run(LOOK_MS)
            torn = {slot: torn.get(slot, world.now_ms) for node in world.honest() for slot in node.torn()}
            if any(world.now_ms - since_ms > TORN_MS + led_ms for since_ms in torn.values()):
                raise Broken(f"{len(torn)} slots with two transactions do not end")
            if not torn and not self._unsettled():
                return
            if world.now_ms > silent_ms:
                for liar in world.liars.values():
                    liar.silent = True
        raise Broken(self._unsettled() or f"{len(torn)} slots with two transactions do not end")

    def _unsettled(self) -> str:
        """What has not come to rest yet."""
        try:
            self.check_settled()
        except Broken as broken:
            return str(broken)
        return ""

    def check_settled(self) -> None:
        """All agree; what an honest owner was told is on its way has arrived; what its jobs cost is paid once."""
        self.world.check_agreement()
        for node in self.world.honest():
            if node.restored:
                if node.machine.muted_why and not node.may_mute:
                    raise Broken(f"{node.node_id} has not learnt what it said: {node.machine.muted_why}")
                continue
            check_bookings(node)
            check_transfers(node)
            if node.machine.promised_in_micro:
                raise Broken(f"{node.node_id} has not posted what it was promised")
            if node.machine.muted_why:
                raise Broken(f"an honest node went mute: {node.machine.muted_why}")


def check_transfers(node: Node) -> None:
    if node.machine.queued_micro:
        raise Broken(f"{node.node_id} still has transfers in its queue")
    views = Views(node.store)
    for answer in node.answers:
        if isinstance(answer, ledger_pb2.CreateTransferResponse):
            found = views.transaction(answer.transaction.transfer_id)
            void = found is not None and found.state == ledger_pb2.TX_STATE_VOID and node.unlocked
            if found is None or (found.state != ledger_pb2.TX_STATE_FINAL and not void):
                raise Broken(f"{node.node_id} was promised {answer.transaction.transfer_id}")


def check_bookings(node: Node) -> None:
    """Each cost is in one row and owed or in one hold, and a hold pays and promises just what stands in it."""
    booked: dict[bytes, dict[int, int]] = {}
    for key, value in node.store.scan(BOOKINGS):
        row = ledger_pb2.Booking.FromString(value)
        if row.hold:
            places = booked.setdefault(row.hold, {})
            if row.owed or row.place in places:
                raise Broken(f"{node.node_id} owes for {key.decode()} twice")
            places[row.place] = row.amount_micro
    for hold, value in node.store.scan(GIVEN):
        given = ledger_pb2.GivenHold.FromString(value)
        if given.amount_micro > HoldTerms.decode(given.terms).room_micro:
            raise Broken(f"{node.node_id} promises {given.amount_micro} out of a hold that has less")
        amounts = booked.pop(hold, {})
        count, amount = given.count, given.amount_micro
        if given.state == ledger_pb2.HOLD_STATE_ENDED:
            count, amount = given.paid, _got(node, given)
        if sorted(amounts) != list(range(count)) or sum(amounts.values()) != amount:
            raise Broken(f"{node.node_id} booked {amounts} out of a hold that pays {amount} for {count}")
    if booked:
        raise Broken(f"{node.node_id} booked {booked} out of holds that it does not have")


def _got(node: Node, given: ledger_pb2.GivenHold) -> int:
    """What a hold's payee has got by its end, which must be final."""
    row = node.store.get(TXS, given.ended)
    assert row is not None, "what has ended a hold is here"
    known = ledger_pb2.TxRow.FromString(row)
    source = Tx.decode(known.signed.body).source
    if known.state != ledger_pb2.TX_STATE_FINAL or not isinstance(source, HoldSource):
        raise Broken(f"a hold of {node.node_id} was ended by what is not final, or by no end")
    return source.act.amount_micro
