"""`offgrid ledger open` and `status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from offgrid.command_line.terminal import counted
from offgrid_tools.cli.amounts import MICRO_MAX, MICRO_PLACES, MILLI_PLACES, WEIGHT_MILLI_MAX, Amount, numbered, pairs
from offgrid_tools.cli.asking import be_sure, yes_option
from offgrid_tools.cli.meaning import meant
from offgrid_tools.cli.reach import at_risk, cut_off
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from offgrid.client import Client
    from offgrid.v1.ledger_pb2 import GetLedgerStatusResponse, Witness
    from offgrid.v1.mesh_pb2 import Peer

BEGIN_WITH = "1000000"  # unless it is said otherwise
LATER = "`offgrid transfer` pays it, `offgrid ledger witnesses --add` has it vote"
MEET_S, MEET_AGAIN_S = 3.0, 0.2  # a new ledger's genesis and the answer to it take a moment


@click.command("open")
@click.option(
    "--witness",
    "witnesses",
    multiple=True,
    metavar="NODE[=WEIGHT]",
    help="Who votes, and with what weight; repeat it. [default: every member, by the weight of its membership]",
)
@click.option(
    "--balance",
    "balances",
    multiple=True,
    metavar="NODE=AMOUNT",
    help=f"Who begins with how much; repeat it. [default: {BEGIN_WITH} for every member]",
)
@click.option(
    "--fee",
    "fee_micro",
    type=Amount(zero=True),
    metavar="AMOUNT",
    help="The least that a transaction costs besides; 0 is nothing. [default: 0.001]",
)
@yes_option
@common
def open_(witnesses: tuple[str, ...], balances: tuple[str, ...], fee_micro: int | None, yes: bool) -> None:
    """Open the mesh's ledger: who witnesses, who begins with how much. Once and for ever, by an admin's node.

    So wait until everybody has joined: who does later begins with 0, and votes once an admin adds it by `offgrid ledger
    witnesses --add`. It says who would be a witness and begin with what, and asks.
    """
    weights = numbered("--witness", pairs("--witness", witnesses, bare=True), MILLI_PLACES, WEIGHT_MILLI_MAX)
    amounts = numbered("--balance", pairs("--balance", balances), MICRO_PLACES, MICRO_MAX)
    client = settings().connect()
    if not yes:
        _be_sure(client, weights, amounts)
    genesis = client.ledger.open(witnesses=weights, balances=amounts, fee_micro=fee_micro)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(genesis)
        return
    from offgrid_tools.cli.amounts import credits_of
    from offgrid_tools.cli.output import facts

    supply = sum(balance.final_micro for balance in genesis.balances)
    facts(
        [
            ("ledger", f"open, of mesh {genesis.mesh}"),
            *committee(genesis.witnesses, genesis.quorum_milli, genesis.faults_survived),
            ("supply", f"{credits_of(supply)} in {counted(len(genesis.balances), 'account')}"),
            ("fee", f"{credits_of(genesis.fee_micro)} at least"),
        ]
    )
    facts([*_missing(_met(client), genesis.quorum_milli)])


def _be_sure(client: Client, weights: Mapping[str, int], amounts: Mapping[str, int]) -> None:
    """Says how the ledger would begin, and asks; nothing where the node is going to refuse it anyway."""
    from offgrid_tools.cli.amounts import credits_of, weight_of

    ledger, peers = client.ledger.status(), [*client.mesh.peers()]
    if ledger.open or not ledger.enabled or not any(peer.self and peer.member.admin for peer in peers):
        return
    own = {peer.member.name: peer.member.weight_milli for peer in peers}
    chosen = weights or {name: weight for name, weight in own.items() if weight}
    voting = [f"{node} ({weight_of(weight or _own_weight(node, peers))})" for node, weight in chosen.items()]
    begin = [f"{node} with {credits_of(amount)}" for node, amount in amounts.items()]
    be_sure(
        "Open it so, for good",
        "the ledger is opened once, for good",
        [
            ("witnesses", ", ".join(voting)),
            ("begin", ", ".join(begin) or f"{', '.join(own)} with {BEGIN_WITH} each"),
            ("later", f"who joins later begins with 0 and is no witness: {LATER}"),
        ],
    )


def _own_weight(node: str, peers: Sequence[Peer]) -> int:
    """In thousandths, of whom the node will take it for: a name, or an id's first characters."""
    found = meant(node, peers)
    return found.weight_milli if found is not None else 0


@click.command()
@common
def status() -> None:
    """Show whether the ledger is open, who witnesses, how far authors' blocks are known here, what is under way."""
    client = settings().connect()
    answer = client.ledger.status()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid_tools.cli.amounts import credits_of
    from offgrid_tools.cli.jobs import named, node_names
    from offgrid_tools.cli.ledger_epochs import standing
    from offgrid_tools.cli.output import facts, table

    if not answer.open:
        way = "an admin opens it once: offgrid ledger open" if answer.enabled else "economy.enabled is false here"
        facts([("ledger", "not open"), ("", way)])
        return
    facts(
        [
            ("ledger", "open" if answer.enabled else "open, but the economy is off here (economy.enabled)"),
            *standing(answer),
            *committee(answer.witnesses, answer.quorum_milli, answer.faults_survived),
            *_missing(answer.witnesses, answer.quorum_milli),
            *cut_off(answer),
            *at_risk(answer),
            ("pending", f"{answer.pending} not final yet"),
            ("owed", f"{credits_of(answer.owed_micro)} booked, and no hold covers it yet"),
            ("promised", _promised(answer)),
            ("supply", f"{credits_of(answer.supply_micro)}, of which {credits_of(answer.fees_micro)} fees"),
            ("fee", f"{credits_of(answer.fee_micro)} at least"),
            *([("mute", f"this node signs nothing: {answer.muted_why}")] if answer.muted_why else []),
            *(("notice", notice) for notice in answer.notices),
        ]
    )
    names = node_names(client)
    table(
        ("author", "height", "newest block"),
        ((named(head.author, names), head.height, head.digest.hex()[:16]) for head in answer.heads),
        empty="no blocks yet",
    )


def _met(client: Client) -> Sequence[Witness]:
    """The witnesses, once all have told this node that they follow the ledger or do not; after MEET_S as they are."""
    import time

    from offgrid.v1.ledger_pb2 import WitnessState

    until = time.monotonic() + MEET_S
    while True:
        witnesses = client.ledger.status().witnesses
        unheard = any(witness.state == WitnessState.WITNESS_STATE_UNHEARD for witness in witnesses)
        if not unheard or time.monotonic() > until:
            return witnesses
        time.sleep(MEET_AGAIN_S)


def _missing(witnesses: Iterable[Witness], quorum_milli: int) -> Iterator[tuple[str, object]]:
    """Those who vote for nothing, as far as is known here, what to do about each, and whether a quorum is left."""
    from offgrid.v1.ledger_pb2 import WitnessState
    from offgrid_tools.cli.amounts import weight_of

    left_milli, missing = 0, False
    for witness in witnesses:
        name = witness.name or witness.node_id
        if witness.state == WitnessState.WITNESS_STATE_ECONOMY_OFF:
            missing = True
            yield "no vote", f"{name} keeps out of the ledger: set economy.enabled = true there and start it again"
        elif witness.state == WitnessState.WITNESS_STATE_UNHEARD:
            missing = True
            yield (
                "no vote",
                f"nothing has come from {name} yet: is it running, in reach, and economy.enabled true there?",
            )
        else:
            left_milli += witness.weight_milli
    if missing and left_milli < quorum_milli:
        yield "no quorum", f"the others weigh {weight_of(left_milli)}: nothing becomes final until enough are there"


def _promised(answer: GetLedgerStatusResponse) -> str:
    """What holds cover, on both sides."""
    from offgrid_tools.cli.amounts import credits_of

    out, coming = credits_of(answer.promised_out_micro), credits_of(answer.promised_in_micro)
    return f"{out} out of {credits_of(answer.held_micro)} in this node's holds; {coming} to it, to post"


def committee(witnesses: Iterable[Witness], quorum_milli: int, faults: int) -> Iterator[tuple[str, object]]:
    from offgrid_tools.cli.amounts import weight_of

    chosen = list(witnesses)
    total = sum(witness.weight_milli for witness in chosen)
    yield "witnesses", ", ".join(f"{w.name or w.node_id} ({weight_of(w.weight_milli)})" for w in chosen)
    yield "quorum", f"{weight_of(quorum_milli)} of {weight_of(total)}"
    yield "survives", f"{faults} of them lost or lying" if faults else "none lost or lying: that takes four equal ones"
