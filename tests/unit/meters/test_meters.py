"""What is counted, and from where: the journal for jobs, executions and transfers; the node's edges for the rest."""

from __future__ import annotations

from google.protobuf.message import Message

from offgrid.v1 import jobs_pb2, ledger_pb2, state_pb2
from offgrid_node.meters import Counter, Histogram, Meters
from offgrid_node.meters.meters import PENDING_MAX
from offgrid_node.protocol.effects import Call, Record
from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.jobs.receipts import ReceiptBody
from offgrid_node.protocol.ledger.delivery import METHOD

CREATED_US = 1_000_000


def counts(counter: Counter) -> dict[tuple[str, ...], int]:
    return {labels: count for labels, count in counter.samples() if count}


def observed(histogram: Histogram) -> dict[tuple[str, ...], tuple[int, float]]:
    """How many and their sum, by labels."""
    return {labels: (sum(spread.counts), spread.total) for labels, spread in histogram.samples()}


def ended(etype: EventType, route: jobs_pb2.Route.ValueType, took_us: int, error: str = "") -> Record:
    job = jobs_pb2.Job(created_us=CREATED_US, route=route, error=error)
    return Record(state_pb2.Event(etype=etype, job=job, timestamp_us=CREATED_US + took_us))


def transfer(etype: EventType, tx_id: str, at_us: int) -> Record:
    return Record(state_pb2.Event(etype=etype, ledger=ledger_pb2.LedgerEvent(tx_id=tx_id), timestamp_us=at_us))


def test_a_job_counts_once_when_it_ends_with_its_way_and_its_time() -> None:
    meters = Meters()
    meters.on_events(
        [
            ended(EventType.JOB_CREATED, jobs_pb2.ROUTE_UNSPECIFIED, 0),
            ended(EventType.JOB_COMPLETED, jobs_pb2.ROUTE_OFFGRID, 250_000),
            ended(EventType.JOB_COMPLETED, jobs_pb2.ROUTE_OFFGRID, 1_750_000),
            ended(EventType.JOB_FAILED, jobs_pb2.ROUTE_FILE_QUEUE, 30_000_000, "JobTimeout"),
        ]
    )
    assert counts(meters.jobs) == {("completed", "offgrid"): 2, ("failed", "file_queue"): 1}
    assert observed(meters.job_duration) == {("completed",): (2, 2.0), ("failed",): (1, 30.0)}
    assert counts(meters.broker_errors) == {}


def test_a_clock_that_was_set_back_makes_no_negative_time() -> None:
    meters = Meters()
    meters.on_events([ended(EventType.JOB_COMPLETED, jobs_pb2.ROUTE_OFFGRID, -5)])
    assert observed(meters.job_duration) == {("completed",): (1, 0.0)}


def calling(method: str, request: Message | None = None) -> Call:
    return Call("ledger", "b", method, request or ledger_pb2.SettleRequest(), None, 1_000)


def test_of_vouchers_bytes_are_counted_too() -> None:
    meters, request = Meters(), ledger_pb2.DeliverVouchersRequest(asked=[bytes(20)])
    meters.on_called(calling(METHOD, request), Unavailable("gone", reason="NotConnected"))
    meters.on_called(calling(METHOD, request), None)
    meters.on_called(calling("offgrid.v1.MarketService/StartJobs", request), None)
    assert counts(meters.voucher_bytes) == {(): 2 * request.ByteSize()}


def test_broker_errors_are_failed_calls_to_brokers_and_brokers_that_are_not_there() -> None:
    meters, lost = Meters(), Unavailable("gone", reason="NotConnected")
    meters.on_called(calling("offgrid.v1.MarketService/SubmitJobs"), lost)
    meters.on_called(calling("offgrid.v1.MarketService/PostOffers"), lost)
    meters.on_called(calling("offgrid.v1.MarketService/SubmitJobs"), None)
    meters.on_called(calling("offgrid.v1.MarketService/StartJobs"), lost)  # to a host
    none = Unavailable("no broker", reason="BrokerUnavailable")
    meters.on_rpc("offgrid.v1.JobService/DispatchJob", "admin", 0.001, none)
    meters.on_events([ended(EventType.JOB_FAILED, jobs_pb2.ROUTE_OFFGRID, 1, "BrokerUnavailable")])
    assert counts(meters.broker_errors) == {("NotConnected",): 2, ("BrokerUnavailable",): 2}
    assert counts(meters.call_errors) == {
        ("offgrid.v1.MarketService/SubmitJobs", "NotConnected"): 1,
        ("offgrid.v1.MarketService/PostOffers", "NotConnected"): 1,
        ("offgrid.v1.MarketService/StartJobs", "NotConnected"): 1,
    }
    assert sum(counts(meters.calls).values()) == 4


def test_a_host_counts_what_it_carried_out_and_how_long_by_its_receipts() -> None:
    meters = Meters()
    node_id, digest = "a" * 32, bytes(32)
    body = ReceiptBody(node_id, node_id, "j", 1, digest, digest, "completed", 1, 20_000, 1, "wasm")
    receipt = jobs_pb2.Receipt(body=body.encode())
    done = jobs_pb2.AttemptEvent(outcome="completed", receipt=receipt)
    for attempt in (done, jobs_pb2.AttemptEvent(outcome="JobTimeout")):
        meters.on_events([Record(state_pb2.Event(etype=EventType.JOB_EXECUTED, attempt=attempt))])
    assert counts(meters.executions) == {("completed",): 1, ("JobTimeout",): 1}
    assert observed(meters.execution_time) == {(): (1, 0.02)}


def test_finality_is_timed_for_transactions_that_were_made_here() -> None:
    meters = Meters()
    meters.on_events(
        [
            transfer(EventType.TX_CREATED, "ours", 1_000_000),
            transfer(EventType.TX_FINAL, "another's", 2_000_000),
            transfer(EventType.TX_FINAL, "ours", 3_500_000),
            transfer(EventType.TX_FINAL, "ours", 9_500_000),
        ]
    )
    assert observed(meters.finality) == {(): (1, 2.5)}


def test_transfers_that_never_become_final_are_let_go_the_oldest_first() -> None:
    meters = Meters()
    meters.on_events([transfer(EventType.TX_CREATED, str(n), 0) for n in range(PENDING_MAX + 1)])
    meters.on_events([transfer(EventType.TX_FINAL, name, 1_000_000) for name in ("0", "1", str(PENDING_MAX))])
    assert observed(meters.finality) == {(): (2, 2.0)}


def test_calls_are_timed_by_method_and_kind_of_caller_and_errors_named() -> None:
    meters = Meters()
    meters.on_rpc("S/A", "member", 0.25, None)
    meters.on_rpc("S/A", "member", 0.5, Unavailable("no", reason="Reloading"))
    meters.on_refused(Unavailable("no", reason="RateLimited"))
    meters.on_commit(15, 0.004)
    assert observed(meters.rpc_time) == {("S/A", "member"): (2, 0.75)}
    assert counts(meters.rpc_errors) == {("S/A", "Reloading"): 1}
    assert counts(meters.refusals) == {("RateLimited",): 1}
    assert (observed(meters.batch_inputs), observed(meters.commits)) == ({(): (1, 15.0)}, {(): (1, 0.004)})


def test_two_nodes_in_one_process_share_no_number() -> None:
    first, second = Meters(), Meters()
    first.on_commit(1, 0.1)
    assert observed(second.commits) == {(): (0, 0.0)}
