"""What an admin's request to open the ledger means: names become nodes, what is not said gets its default, and what no
ledger may begin with is refused by the field that is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest
from offgrid_node.protocol.ledger.records import (
    ACCOUNTS_MAX,
    AMOUNT_MAX,
    FEE_MICRO_DEFAULT,
    SUPPLY_MAX,
    WITNESSES_MAX,
    LedgerGenesis,
)
from offgrid_node.protocol.ledger.refusals import wrong_amount
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.records import WEIGHT_MILLI_MAX

BALANCE_MICRO_DEFAULT = 10**12  # a million credits


def check_admin(directory: Directory, node_id: str, what: str = "open its ledger") -> None:
    """Raises FailedPrecondition (NotAnAdmin), naming who could do `what`, unless the root named this node an admin."""
    if directory.is_admin(node_id):
        return
    admins = [record.name for other in directory.live() if (record := directory.member(other)) and record.admin]
    raise FailedPrecondition(
        f"this node is no admin of the mesh and may not {what}; ask one of: "
        f"{', '.join(admins[:5]) or 'no admin is left'}",
        reason="NotAnAdmin",
    )


def genesis_of(
    request: ledger_pb2.OpenLedgerRequest, directory: Directory, issuer: str, created_us: int
) -> LedgerGenesis:
    """The genesis that is asked for. Raises InvalidRequest and NotFound."""
    live = directory.live()
    if request.witnesses:
        nodes = _named("witnesses", [w.node_id or w.name for w in request.witnesses], directory)
        weights = [weight_asked(f"witnesses[{i}]", w.weight_milli) for i, w in enumerate(request.witnesses)]
        witnesses = [(node, weight or own_weight(directory, node)) for node, weight in zip(nodes, weights, strict=True)]
    else:
        witnesses = [(node, weight) for node in live if (weight := own_weight(directory, node))]
    if request.balances:
        nodes = _named("balances", [b.account or b.name for b in request.balances], directory)
        balances = [(node, b.final_micro) for node, b in zip(nodes, request.balances, strict=True)]
    else:
        balances = [(node, BALANCE_MICRO_DEFAULT) for node in live]
    _check_count("witnesses", len(witnesses), WITNESSES_MAX)
    _check_count("balances", len(balances), ACCOUNTS_MAX)
    if not sum(weight for _, weight in witnesses):
        raise InvalidRequest.field("witnesses", "they weigh nothing together; a weight above 0 is needed")
    supply = sum(amount for _, amount in balances)
    if supply > SUPPLY_MAX:
        allowed = f"{supply} millionths together; at most {SUPPLY_MAX} are allowed"
        raise wrong_amount("balances", allowed, "SupplyTooLarge", supply_micro=supply, most_micro=SUPPLY_MAX)
    fee = request.fee_micro if request.HasField("fee_micro") else FEE_MICRO_DEFAULT
    if fee > AMOUNT_MAX:
        raise InvalidRequest.field("fee_micro", f"{fee}; 0 (none) to {AMOUNT_MAX} are allowed")
    genesis = LedgerGenesis(issuer, tuple(witnesses), tuple(balances), fee, created_us)
    try:
        genesis.check()
    except ValueError as error:
        raise InvalidRequest(f"no ledger begins like this: {error}") from error
    return genesis


def _named(field: str, texts: Sequence[str], directory: Directory) -> list[str]:
    """The members that are meant, each once."""
    nodes: list[str] = []
    for index, text in enumerate(texts):
        node = resolve(f"{field}[{index}]", text, directory)
        if node in nodes:
            raise InvalidRequest.field(f"{field}[{index}]", f"{text!r} is named twice; once is allowed")
        nodes.append(node)
    return nodes


def resolve(field: str, text: str, directory: Directory, *, removed: bool = False) -> str:
    """The member that a person means by `text`. Raises InvalidRequest, which names the field, and NotFound."""
    if not text:
        raise InvalidRequest.field(field, "say which: a node id, its first 4 characters or more, or a name")
    try:
        return directory.resolve(text, removed=removed)
    except InvalidRequest as fault:
        raise InvalidRequest.field(field, fault.violations[0].description) from fault


def weight_asked(field: str, weight_milli: int) -> int:
    """Raises InvalidRequest, which names the field."""
    if weight_milli > WEIGHT_MILLI_MAX:
        raise InvalidRequest.field(
            f"{field}.weight_milli",
            f"{weight_milli}; 0 (the weight of its membership) to {WEIGHT_MILLI_MAX} are allowed",
        )
    return weight_milli


def own_weight(directory: Directory, node: str) -> int:
    """That of its membership; 0 for a stranger."""
    record = directory.member(node)
    return record.weight_milli if record else 0


def _check_count(field: str, count: int, most: int) -> None:
    if not 1 <= count <= most:
        raise InvalidRequest.field(field, f"{count} of them; 1 to {most} are allowed, so name them")
