"""What `offgrid smoke` tries of what a node keeps: objects, events, sessions, and the ledger."""

from __future__ import annotations

import os
from collections.abc import Iterator

from offgrid.command_line.terminal import counted
from offgrid.v1.common_pb2 import ROLE_HOST
from offgrid.verdicts import SMOKE_OWN, away, ledger_cut_off, ledger_mute, playing
from offgrid_tools.cli.smoke_frame import FAILED, NAMED_MAX, OK, SKIPPED, Line, Seen

OBJECT_S, TRANSFER_S = 5.0, 5.0
OBJECT_BYTES = 1_024
COPIES_MAX = 3
LEAST_MICRO = 1
FRAME_BYTES = 4  # by which a run knows its event again


def objects(seen: Seen) -> Iterator[Line]:
    weights = {peer.member.node_id: peer.member.weight_milli for peer in seen.hosts if not peer.self}
    if not weights:
        yield Line("object", "", SKIPPED, "no other host is alive to keep one")
        return
    copies, data = min(COPIES_MAX, len(weights)), os.urandom(OBJECT_BYTES)
    enough_milli = copies * min(weights.values())
    if told := _too_light(seen, sum(weights.values())):
        yield told
    made = seen.client.objects.put(data, name="smoke-test", copies=copies, required_milli=enough_milli)
    try:
        try:
            made = seen.client.objects.wait_durable(made.object_id, timeout_s=seen.left_s(OBJECT_S))
        except TimeoutError as error:
            yield Line("object", "put", FAILED, str(error), "offgrid outbox --open; offgrid placement explain")
            return
        yield Line("object", "put", OK, f"sealed, {len(made.acks)} {'host' if len(made.acks) == 1 else 'hosts'} acked")
        same = seen.client.objects.read(made.object_id) == data
        yield Line("object", "read", OK if same else FAILED, "the same bytes" if same else "OTHER bytes")
    finally:
        seen.client.objects.delete(made.object_id)
    yield Line("object", "rm", OK, "gone here; its hosts are being told")


def _too_light(seen: Seen, weight_milli: int) -> Line | None:
    """Of what is put without saying anything, whether the hosts that are alive can ever make it durable."""
    plain = seen.client.objects.put(b"smoke", name="smoke-test")
    seen.client.objects.delete(plain.object_id)
    if weight_milli >= plain.required_milli:
        return None
    away_milli = sum(peer.member.weight_milli for peer in away(playing(ROLE_HOST, seen.peers)))
    said = f"hosts weigh {weight_milli / 1000:g}, an object wants {plain.required_milli / 1000:g}: it waits"
    if weight_milli + away_milli >= plain.required_milli:
        return Line("object", "weight", FAILED, said, "offgrid peers")
    return Line("object", "weight", SKIPPED, f"{said} for another host", "offgrid put FILE --required 1.0")


def events(seen: Seen) -> Iterator[Line]:
    found = list(seen.client.events.list(subject=seen.job_id, limit=NAMED_MAX, newest_first=not seen.job_id))
    if found and seen.job_id:
        yield Line("events", "", OK, f"the journal tells of job {seen.job_id}")
    elif found:
        yield Line("events", "", OK, f"the journal is read up to event {found[0].seq}")
    else:
        what = f"job {seen.job_id}" if seen.job_id else "anything"
        yield Line("events", "", FAILED, f"the journal does not tell of {what}", "offgrid events")


def session(seen: Seen) -> Iterator[Line]:
    """An event in a session, of which nothing is left then; what a run left that was broken off goes with it."""
    made, frame = seen.client.session(SMOKE_OWN), int.from_bytes(os.urandom(FRAME_BYTES))
    try:
        made.record("health.heartbeat", {"queue_depth": 0}, frame=frame)
        durable = made.flush(seen.left_s(OBJECT_S))
        count = len(list(seen.client.sessions.records(made.session_id, frame=frame, limit=NAMED_MAX)))
    finally:
        made.close()
        seen.client.sessions.purge([made.session_id], forget=True)
    if durable and count == 1:
        yield Line("session", "", OK, "recorded, read back, shredded")
    else:
        yield Line(
            "session",
            "",
            FAILED,
            f"{counted(count, 'event')} read of the 1 that was recorded",
            "offgrid state sessions",
        )


def ledger(seen: Seen) -> Iterator[Line]:
    told = seen.client.ledger.status()
    if not told.enabled:
        yield Line("ledger", "", SKIPPED, "economy.enabled is false here")
    elif not told.open:
        yield Line(
            "ledger", "", SKIPPED, "it is not open; it is opened once, when all have joined", "offgrid ledger open"
        )
    elif said := ledger_cut_off(told) or ledger_mute(told):
        yield Line("ledger", "", FAILED, said, "offgrid ledger status")
    else:
        said = f"{told.reach_milli / 1000:g} of {told.quorum_milli / 1000:g} needed in reach"
        yield Line("ledger", "", OK, f"{counted(len(told.witnesses), 'witness')}, {said}")
        if seen.with_transfer:
            yield _transfer(seen)


def _transfer(seen: Seen) -> Line:
    """The least amount, to a lane of this node's own: all that it costs is the fee."""
    lanes = [account.balance.name for account in seen.client.ledger.wallet().accounts if account.lane]
    if not lanes:
        return Line("transfer", "", SKIPPED, "this node has no lane to pay into", "offgrid wallet create-lane")
    made = seen.client.ledger.transfer(lanes[0], LEAST_MICRO, src=seen.status.node_id, meta={"reason": "smoke test"})
    ended = seen.client.ledger.settled(made.tx_id, seen.left_s(TRANSFER_S))
    from offgrid.v1.ledger_pb2 import TX_STATE_FINAL

    if ended.state == TX_STATE_FINAL:
        return Line("transfer", lanes[0], OK, "0.000001 final")
    return Line("transfer", lanes[0], FAILED, "not final yet; do not send it again", f"offgrid tx show {made.tx_id}")
