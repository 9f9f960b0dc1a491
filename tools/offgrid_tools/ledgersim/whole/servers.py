"""What liars bring to a node that was away for longer than blocks are kept and asks them for a checkpoint: one of
their own, under seals that nobody gave, or the right one and accounts that it does not have."""

from __future__ import annotations

from msgspec.structs import replace

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.bootstrap import served
from offgrid_node.protocol.ledger.checkpoints import Base, accounts_root, cut_account, heads_digest
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_tools.ledgersim.keys import SALT, Key
from offgrid_tools.ledgersim.whole.world import World


def checkpoints_for(world: World, liar: str, first: int) -> ledger_pb2.PushCheckpointsRequest:
    """From an epoch's on: what an honest node would bring, or a lie."""
    rng = world.rng
    machine = world.nodes[rng.choice([*world.nodes])].machine
    request = served(machine._draft, machine._epochs, SALT, machine._pruning.oldest, first)
    if not request.checkpoints or rng.random() < 0.5:
        return request
    ledger, epoch = world.genesis.digest(SALT), first + len(request.checkpoints) - 1
    head = Base(node_id_bytes(liar), 1, rng.randbytes(32))
    body = replace(
        world.judge.checkpoints[epoch],
        accounts=accounts_root([_made_up(world, liar)], SALT),
        count=1,
        heads=heads_digest([head], SALT),
    )
    final = Final(ledger, cut_account(ledger, epoch, SALT), 0, body.digest(SALT), epoch).digest(SALT)
    del request.checkpoints[-1].seals[:]
    committee = world.judge.committee(epoch)
    for node in committee.nodes_of(committee.all):
        signature = Key(liar).sign(final) if node == liar else rng.randbytes(64)
        request.checkpoints[-1].seals.add(witness=node_id_bytes(node), signature=signature)
    request.checkpoints[-1].body = body.encode()
    del request.heads[:]
    request.heads.add(author=head.author, height=head.height, digest=head.digest)
    return request


def accounts_for(world: World, liar: str) -> ledger_pb2.ListEpochAccountsResponse:
    """All of them, by its word: the money is its own."""
    return ledger_pb2.ListEpochAccountsResponse(accounts=_made_up(world, liar), last=True)


def _made_up(world: World, liar: str) -> bytes:
    return node_id_bytes(liar) + Account(world.genesis.supply_micro, 0, world.genesis.digest(SALT)).encode()
