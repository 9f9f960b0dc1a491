"""What status, doctor and smoke say alike of the same answers."""

from __future__ import annotations

import pytest

from offgrid.v1.common_pb2 import LIVENESS_ALIVE, LIVENESS_DEAD, ROLE_BROKER, ROLE_HOST
from offgrid.v1.ledger_pb2 import GetLedgerStatusResponse, Witness
from offgrid.v1.mesh_pb2 import ALERT_STATE_CRITICAL, ALERT_STATE_OK, ALERT_STATE_WARN, Alert, Member, ObjectRisks, Peer
from offgrid.verdicts import (
    alert_sentence,
    away,
    hosts_to_spare,
    in_reach,
    ledger_cut_off,
    ledger_mute,
    objects_at_risk,
    objects_degraded,
    objects_gone,
    playing,
)

HERE = Peer(self=True, roles_in_force=[ROLE_BROKER])
THERE = Peer(liveness=LIVENESS_ALIVE, roles_in_force=[ROLE_HOST])
GONE = Peer(liveness=LIVENESS_DEAD, member=Member(roles=[ROLE_HOST, ROLE_BROKER]))


def test_who_is_in_reach_and_who_plays_what() -> None:
    assert [in_reach(peer) for peer in (HERE, THERE, GONE)] == [True, True, False]
    assert away([HERE, THERE, GONE]) == [GONE]
    assert playing(ROLE_HOST, [HERE, THERE, GONE]) == [THERE, GONE]
    assert playing(ROLE_BROKER, [HERE, THERE, GONE]) == [HERE, GONE]


@pytest.mark.parametrize(
    ("alert", "sentence"),
    [
        (Alert(name="memory_mb", state=ALERT_STATE_OK, value=1, threshold=4096), ""),
        (
            Alert(name="memory_mb", state=ALERT_STATE_WARN, value=5000, threshold=4096),
            "warn: memory_mb 5000, more than 4096",
        ),
        (
            Alert(name="write_latency_ms", state=ALERT_STATE_WARN, value=22.6999, threshold=50),
            "warn: write_latency_ms was more than 50, and is 22.7 now",
        ),
        (
            Alert(name="frame_ms", state=ALERT_STATE_CRITICAL, value=40, threshold=16.67, about="s-1"),
            "critical: frame_ms 40, more than 16.67 of session s-1",
        ),
    ],
)
def test_an_alert_in_words(alert: Alert, sentence: str) -> None:
    assert alert_sentence(alert) == sentence


def test_what_keeps_payments_from_being_final() -> None:
    well = GetLedgerStatusResponse(enabled=True, open=True, reach_milli=3000, quorum_milli=3000)
    assert (ledger_cut_off(well), ledger_mute(well)) == ("", "")
    witnesses = [Witness(name="barn", away_ms=1), Witness(node_id="a" * 32, away_ms=1), Witness(name="here")]
    cut = GetLedgerStatusResponse(reach_milli=1000, quorum_milli=2500, witnesses=witnesses)
    assert ledger_cut_off(cut) == (
        "witnesses in reach weigh 1 of the 2.5 that it takes: no payment becomes final. Away: barn, aaaaaaaaaaaa"
    )
    assert ledger_mute(GetLedgerStatusResponse(muted_why="restored")).endswith("signs nothing in the ledger: restored")


def test_what_may_be_lost_in_words() -> None:
    one = ObjectRisks(gone=1, gone_names=["film"], at_risk=1, at_risk_names=["notes"], degraded=1)
    assert objects_gone(one) == "1 object cannot be read now: film"
    assert objects_at_risk(one) == "1 object is lost with one more host: notes"
    assert objects_degraded(one) == "hosts in reach keep less than is wanted of 1 object"
    many = ObjectRisks(gone=3, gone_names=["a", "b"], at_risk=2, at_risk_names=["c", "d"], degraded=7)
    assert objects_gone(many) == "3 objects cannot be read now: a, b and 1 more"
    assert objects_at_risk(many) == "2 objects are lost with one more host: c, d"
    assert objects_degraded(many) == "hosts in reach keep less than is wanted of 7 objects"
    assert {judge(ObjectRisks()) for judge in (objects_gone, objects_at_risk, objects_degraded)} == {""}


@pytest.mark.parametrize(
    ("shards", "needed", "spare"),
    [((1, 1, 1), 1, 2), ((2, 2, 2), 4, 1), ((2, 2), 4, 0), ((4, 1, 1, 1), 4, 0), ((1, 1), 3, None), ((), 1, None)],
)
def test_how_many_hosts_may_go(shards: tuple[int, ...], needed: int, spare: int | None) -> None:
    assert hosts_to_spare(shards, needed) == spare
