"""One seed: a hostile while, then peace; what must hold of each."""

from __future__ import annotations

from random import Random

from ledger_world import START_MICRO, Broken, Node, World
from liars import Liar

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.tables import BOOKINGS, TXS
from offgrid_node.protocol.ledger.views import Views

HOSTILE_MS, PEACE_MS, LOOK_MS = 6_000, 80_000, 4_000
TORN_MS = 60_000  # liars go on in peace: so long a slot with two transactions may stay open


def play(seed: int, *, lying: bool = True, tearing: bool = False) -> World:
    """Raises Broken, naming what does not hold. `tearing`: an owner and its accomplice do nothing but sign two
    transactions for one slot."""
    size = 4 if seed % 3 else 7
    faults = (size - 1) // 3 if lying else 0
    world = World(seed, size, 4 if tearing else 2, lying=faults, weights=weights_of(seed, size, faults))
    rng = world.rng
    world.latency_ms = rng.choice([(1, 60), (1, 1_500), (500, 2_500)] if tearing else [(1, 5), (1, 60), (1, 1_500)])
    for number in range(faults):
        Liar(world, world.names[number], equivocates=rng.random() < 0.5)
    if tearing:
        owner, accomplice = world.names[size : size + 2]
        del world.nodes[owner], world.nodes[accomplice]
        Liar(world, owner, equivocates=True, accomplice=Liar(world, accomplice, equivocates=False))
    elif lying and seed % 2:
        observer = world.names[size]
        del world.nodes[observer]
        Liar(world, observer, equivocates=True)
    world.run(50)
    world.open()
    world.run(2_500)
    world.loss, world.repeats = rng.choice([0.0, 0.05, 0.3]), rng.choice([0.0, 0.1])
    world.crash_odds = rng.choice([0.0, 0.003, 0.02])
    until = world.now_ms + HOSTILE_MS
    asked = 0
    while world.now_ms < until:
        world.run(rng.randrange(1, 400))
        spender = world.nodes[rng.choice([*world.nodes])]
        spender.transfer(rng.choice(world.names), rng.randrange(1, START_MICRO // 3), request_id=f"r{asked}")
        asked += 1
        if rng.random() < 0.1:
            world.nodes[rng.choice([*world.nodes])].unlock()
        if rng.random() < 0.1:
            cut = rng.random() < 0.6
            world.sides = {name: rng.randrange(0, 2) for name in world.names} if cut else {}
        if rng.random() < 0.3:
            payee = rng.choice(world.names)
            spender_name = spender.node_id
            if spender.up:
                world.cost(spender_name, f"j-{asked}", payee, rng.randrange(0, 5_000))
    world.heal()
    world.run(LOOK_MS)
    torn: dict[tuple[bytes, int], int] = {}
    for _ in range(LOOK_MS, PEACE_MS, LOOK_MS):
        world.run(LOOK_MS)
        torn = {slot: torn.get(slot, world.now_ms) for node in world.honest() for slot in node.torn()}
        if any(world.now_ms - since_ms > TORN_MS for since_ms in torn.values()):
            raise Broken(f"slots with two transactions do not end: {torn}")
        try:
            check_settled(world)
            if not torn:
                return world
        except Broken:
            pass  # not yet
    check_settled(world)
    return world


def weights_of(seed: int, size: int, faults: int) -> list[int]:
    """Of the witnesses, the liars first, who weigh less than a third together; in half of the seeds all the same."""
    rng = Random(f"weights {seed}")
    if rng.random() < 0.5:
        return [1_000] * size
    weights = [rng.choice((250, 1_000, 1_500, 4_000)) for _ in range(size)]
    while 3 * sum(weights[:faults]) >= sum(weights):
        weights[faults:] = [2 * weight for weight in weights[faults:]]
    return weights


def check_settled(world: World) -> None:
    """All agree; what an honest owner was told is on its way has arrived; what its jobs cost is paid once."""
    world.check_agreement()
    for node in world.honest():
        check_bookings(node)
        if node.machine.queued_micro:
            raise Broken(f"{node.node_id} still has transfers in its queue")
        views = Views(node.store)
        for answer in node.answers:
            if isinstance(answer, ledger_pb2.CreateTransferResponse):
                found = views.transaction(answer.transaction.transfer_id)
                void = found is not None and found.state == ledger_pb2.TX_STATE_VOID and node.unlocked
                if found is None or (found.state != ledger_pb2.TX_STATE_FINAL and not void):
                    raise Broken(f"{node.node_id} was promised {answer.transaction.transfer_id}: {found}")
        if node.machine.muted_why:
            raise Broken(f"an honest node went mute: {node.machine.muted_why}")


def check_bookings(node: Node) -> None:
    """Each cost is in one row, each row in at most one payment, and payments pay what the rows say."""
    booked: dict[str, int] = {}
    for _, value in node.store.scan(BOOKINGS):
        row = ledger_pb2.Booking.FromString(value)
        if row.tx_id:
            booked[row.tx_id] = booked.get(row.tx_id, 0) + row.amount_micro
    views = Views(node.store)
    paid = {}
    for digest, value in node.store.scan(TXS):
        if ledger_pb2.TxRow.FromString(value).bookings:
            found = views.by_digest(digest)
            assert found is not None
            if found.state == ledger_pb2.TX_STATE_VOID and node.unlocked:
                continue
            paid[found.tx_id] = sum(output.amount_micro for output in found.outputs)
            if found.state != ledger_pb2.TX_STATE_FINAL:
                raise Broken(f"a payment of {node.node_id} is not final")
    if paid != booked:
        raise Broken(f"{node.node_id} booked {booked} and paid {paid}")
