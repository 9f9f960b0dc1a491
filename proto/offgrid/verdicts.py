"""What the answers of a node mean for whoever looks after it: judged here once, for `status`, `doctor`, `smoke` and the
log alike. Pure; each sentence is empty where nothing is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from offgrid.v1.common_pb2 import LIVENESS_ALIVE
from offgrid.v1.mesh_pb2 import ALERT_STATE_OK, AlertState

if TYPE_CHECKING:
    from offgrid.v1.common_pb2 import Role
    from offgrid.v1.ledger_pb2 import GetLedgerStatusResponse
    from offgrid.v1.mesh_pb2 import Alert, ObjectRisks, Peer

OF_OBJECTS = frozenset({"objects_gone", "objects_at_risk"})  # alerts of what `objects_gone`, `objects_at_risk` say
SMOKE_NAME = "smoke"  # of the mission and the task of all runs of `offgrid smoke`, which it knows by its request ids
SMOKE_OWN = "offgrid-smoke"  # of its quorum and its session, which it knows by name: nobody calls one of theirs so


def in_reach(peer: Peer) -> bool:
    """This node itself, and whoever answers."""
    return peer.self or peer.liveness == LIVENESS_ALIVE


def playing(role: Role.ValueType, peers: Iterable[Peer]) -> list[Peer]:
    """The members with that role, in reach or not; what a member's own config says of it counts once it was heard."""
    return [peer for peer in peers if role in (peer.roles_in_force or peer.member.roles)]


def away(peers: Iterable[Peer]) -> list[Peer]:
    return [peer for peer in peers if not in_reach(peer)]


def alert_sentence(alert: Alert) -> str:
    """An alert outlasts the figure that began it for a while, and says so."""
    if alert.state == ALERT_STATE_OK:
        return ""
    grade = AlertState.Name(alert.state).removeprefix("ALERT_STATE_").lower()
    value, threshold = _figure(alert.value), _figure(alert.threshold)
    beyond = f"{value}, more than {threshold}"
    was = f"was more than {threshold}, and is {value} now"
    about = f" of session {alert.about}" if alert.about else ""
    return f"{grade}: {alert.name} {beyond if alert.value > alert.threshold else was}{about}"


def ledger_mute(told: GetLedgerStatusResponse) -> str:
    """Why the node may not sign."""
    return f"this node signs nothing in the ledger: {told.muted_why}" if told.muted_why else ""


def ledger_cut_off(told: GetLedgerStatusResponse) -> str:
    """Why no payment becomes final."""
    if told.reach_milli >= told.quorum_milli:
        return ""
    gone = ", ".join(witness.name or witness.node_id[:12] for witness in told.witnesses if witness.away_ms)
    weights = f"{told.reach_milli / 1000:g} of the {told.quorum_milli / 1000:g} that it takes"
    return f"witnesses in reach weigh {weights}: no payment becomes final" + (f". Away: {gone}" if gone else "")


def objects_gone(told: ObjectRisks) -> str:
    """Which objects their owner cannot have."""
    if not told.gone:
        return ""
    return f"{_objects(told.gone)} cannot be read now: {_first(told.gone_names, told.gone)}"


def objects_at_risk(told: ObjectRisks) -> str:
    """Which objects are next."""
    if not told.at_risk:
        return ""
    are = "is" if told.at_risk == 1 else "are"
    return f"{_objects(told.at_risk)} {are} lost with one more host: {_first(told.at_risk_names, told.at_risk)}"


def objects_degraded(told: ObjectRisks) -> str:
    """How many objects have less at hosts than they should, though no single loss ends one."""
    if not told.degraded:
        return ""
    return f"hosts in reach keep less than is wanted of {_objects(told.degraded)}"


def _objects(count: int) -> str:
    return "1 object" if count == 1 else f"{count} objects"


def _first(names: Sequence[str], total: int) -> str:
    more = f" and {total - len(names)} more" if total > len(names) else ""
    return ", ".join(names) + more


def _figure(value: float) -> str:
    """To three places, never in powers of ten."""
    return f"{value:.3f}".rstrip("0").rstrip(".")


def hosts_to_spare(shards: Iterable[int], needed: int) -> int | None:
    """How many of the hosts that hold so many `shards` each may go, whichever they are, while `needed` shards give the
    object back; None where it cannot be had even with all of them."""
    held = sorted(shards, reverse=True)
    left, spare = sum(held), 0
    if left < needed:
        return None
    for each in held:
        left -= each
        if left < needed:
            break
        spare += 1
    return spare
