"""Handlers of JobService and MarketService: check what came, verify what was signed, hand it to the jobs machine.

Questions are answered from committed rows; whatever changes something goes through the runtime.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import common_pb2, jobs_pb2, state_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import InvalidRequest, NotFound, PeerFault
from offgrid_node.protocol.jobs import commands
from offgrid_node.protocol.jobs.broker import OFFER_LISTS_MAX
from offgrid_node.protocol.jobs.catalogue import ACTIVE, COMPLETED, MISSIONS, REQUESTS, TASKS, clash
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.needs import check_payload, estimate_tokens, needs_of
from offgrid_node.protocol.jobs.open_jobs import JOBS, RESULTS
from offgrid_node.protocol.jobs.orders import ORDER_KIND, JobOrder, payload_digest
from offgrid_node.protocol.jobs.post import CALL_ITEMS_MAX
from offgrid_node.protocol.jobs.receipts import COMPLETED as RESULT_COMPLETED
from offgrid_node.protocol.jobs.receipts import FAILED as RESULT_FAILED
from offgrid_node.protocol.jobs.receipts import ReceiptBody, result_digest, verify_receipt
from offgrid_node.protocol.jobs.table import ENDED
from offgrid_node.protocol.signing import digest_of
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.paging import decode_token, encode_token, page_bounds
from offgrid_node.services.stream import Stream

KINDS = ("compute", "llm_call", "python", "wasm", "process", "dask")
TITLE_CHARS_MAX, TEXT_CHARS_MAX, REQUEST_ID_CHARS_MAX = 256, 16_384, 64
TIMEOUT_MS_MIN, TIMEOUT_MS_MAX = 100, 86_400_000
TOKENS_MAX = 10**15
SLOTS_MAX = 1_024
PRICE_MAX = 10**15
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]*\Z")

M = TypeVar("M", bound=Message)


class Keys(Protocol):
    """What the handlers need to know of members, so that they can check signatures."""

    @property
    def salt(self) -> bytes: ...

    def current_key(self, node_id: str) -> bytes | None: ...


def _text(field: str, value: str, most: int, *, empty: bool = False) -> str:
    if not value and not empty:
        raise InvalidRequest.field(field, f"must not be empty; 1 to {most} characters are allowed")
    if len(value) > most:
        raise InvalidRequest.field(field, f"{len(value)} characters; at most {most} are allowed")
    if any(ord(char) < 32 and char not in "\n\t" for char in value):
        raise InvalidRequest.field(field, "holds control characters")
    return value


def _request_id(value: str) -> str:
    if len(value) > REQUEST_ID_CHARS_MAX or not REQUEST_ID.match(value):
        raise InvalidRequest.field(
            "request_id", f"at most {REQUEST_ID_CHARS_MAX} characters of A-Z a-z 0-9 . _ : - are allowed"
        )
    return value


class Shelf:
    """Typed look-ups in committed rows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def find(self, table: str, row: type[M], row_id: str) -> M | None:
        if not row_id or len(row_id) > REQUEST_ID_CHARS_MAX:
            return None
        value = self._runtime.store.get(table, row_id.encode())
        return row.FromString(value) if value is not None else None

    def get(self, field: str, table: str, row: type[M], row_id: str) -> M:
        """Raises NotFound with the field and the id."""
        found = self.find(table, row, row_id)
        if found is None:
            what = row.DESCRIPTOR.name.lower()
            raise NotFound(
                f"there is no {what} {row_id!r}", reason=f"{what.capitalize()}NotFound", metadata={field: row_id}
            )
        return found

    def made(self, table: str, row: type[M], request_id: str) -> M | None:
        """What an earlier call with this request id made; raises AlreadyExists when that was something else."""
        value = self._runtime.store.get(REQUESTS, request_id.encode()) if request_id else None
        if value is None:
            return None
        found = self.find(table, row, value.decode())
        if found is None:
            raise clash(request_id, row, value.decode())
        return found

    def page(self, table: str, row: type[M], size: int, token: str, wanted: Callable[[M], bool]) -> tuple[list[M], str]:
        """Rows in the order of their keys from the token on, and the token of the next page."""
        size = page_bounds(size)
        found: list[M] = []
        for key, value in self._runtime.store.scan(table, decode_token(token)):
            message = row.FromString(value)
            if wanted(message):
                if len(found) == size:
                    return found, encode_token(key)
                found.append(message)
        return found, ""


class JobHandlers:
    """JobService: what a core's owner calls."""

    def __init__(self, runtime: Runtime, timeout_ms: int) -> None:
        """`timeout_ms` is given to jobs that name none."""
        self._runtime, self._shelf, self._timeout_ms = runtime, Shelf(runtime), timeout_ms

    def create_mission(self, caller: Caller, request: jobs_pb2.CreateMissionRequest) -> Message | Ticket:
        title = _text("title", request.title, TITLE_CHARS_MAX)
        description = _text("description", request.description, TEXT_CHARS_MAX, empty=True)
        known = self._shelf.made(MISSIONS, jobs_pb2.Mission, _request_id(request.request_id))
        if known is not None:
            return jobs_pb2.CreateMissionResponse(mission=known)
        return self._ask(caller, commands.CreateMission(title, description, request.request_id))

    def get_mission(self, caller: Caller, request: jobs_pb2.GetMissionRequest) -> Message:
        mission = self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        return jobs_pb2.GetMissionResponse(mission=mission)

    def list_missions(self, caller: Caller, request: jobs_pb2.ListMissionsRequest) -> Message:
        page = self._shelf.page(MISSIONS, jobs_pb2.Mission, request.page_size, request.page_token, lambda row: True)
        return jobs_pb2.ListMissionsResponse(missions=page[0], next_page_token=page[1])

    def update_mission(self, caller: Caller, request: jobs_pb2.UpdateMissionRequest) -> Ticket:
        self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        title = _text("title", request.title, TITLE_CHARS_MAX) if request.HasField("title") else None
        description = None
        if request.HasField("description"):
            description = _text("description", request.description, TEXT_CHARS_MAX, empty=True)
        status = request.status if request.HasField("status") else None
        if status not in (None, ACTIVE, COMPLETED):
            raise InvalidRequest.field("status", f"{status!r} is not known; allowed: {ACTIVE}, {COMPLETED}")
        return self._ask(caller, commands.UpdateMission(request.mission_id, title, description, status))

    def create_task(self, caller: Caller, request: jobs_pb2.CreateTaskRequest) -> Message | Ticket:
        name = _text("name", request.name, TITLE_CHARS_MAX)
        if request.kind not in KINDS:
            raise InvalidRequest.field("kind", f"{request.kind!r} is not known; allowed: {', '.join(KINDS)}")
        self._shelf.get("mission_id", MISSIONS, jobs_pb2.Mission, request.mission_id)
        known = self._shelf.made(TASKS, jobs_pb2.Task, _request_id(request.request_id))
        if known is not None:
            return jobs_pb2.CreateTaskResponse(task=known)
        return self._ask(caller, commands.CreateTask(request.mission_id, name, request.kind, request.request_id))

    def get_task(self, caller: Caller, request: jobs_pb2.GetTaskRequest) -> Message:
        return jobs_pb2.GetTaskResponse(task=self._shelf.get("task_id", TASKS, jobs_pb2.Task, request.task_id))

    def list_tasks(self, caller: Caller, request: jobs_pb2.ListTasksRequest) -> Message:
        def wanted(task: jobs_pb2.Task) -> bool:
            return not request.mission_id or task.mission_id == request.mission_id

        page = self._shelf.page(TASKS, jobs_pb2.Task, request.page_size, request.page_token, wanted)
        return jobs_pb2.ListTasksResponse(tasks=page[0], next_page_token=page[1])

    def create_job(self, caller: Caller, request: jobs_pb2.CreateJobRequest) -> Message | Ticket:
        task = self._shelf.get("task_id", TASKS, jobs_pb2.Task, request.task_id)
        check_payload(request.payload)
        if request.size_tokens > TOKENS_MAX:
            raise InvalidRequest.field("size_tokens", f"{request.size_tokens}; at most {TOKENS_MAX} are allowed")
        timeout_ms = request.timeout_ms or self._timeout_ms
        if not TIMEOUT_MS_MIN <= timeout_ms <= TIMEOUT_MS_MAX:
            raise InvalidRequest.field("timeout_ms", f"{timeout_ms}; {TIMEOUT_MS_MIN} to {TIMEOUT_MS_MAX} are allowed")
        known = self._shelf.made(JOBS, jobs_pb2.Job, _request_id(request.request_id))
        if known is not None:
            return jobs_pb2.CreateJobResponse(job=known)
        command = commands.CreateJob(
            task=task,
            payload=request.payload.SerializeToString(deterministic=True),
            needs=needs_of(request.payload),
            size_tokens=request.size_tokens or estimate_tokens(request.payload),
            timeout_ms=timeout_ms,
            input_name=_text("payload.input_name", request.payload.input_name, TITLE_CHARS_MAX, empty=True),
            request_id=request.request_id,
        )
        return self._ask(caller, command)

    def get_job(self, caller: Caller, request: jobs_pb2.GetJobRequest) -> Message:
        return jobs_pb2.GetJobResponse(job=self._whole(request.job_id))

    def list_jobs(self, caller: Caller, request: jobs_pb2.ListJobsRequest) -> Message:
        def wanted(job: jobs_pb2.Job) -> bool:
            return not request.task_id or job.task_id == request.task_id

        page = self._shelf.page(JOBS, jobs_pb2.Job, request.page_size, request.page_token, wanted)
        return jobs_pb2.ListJobsResponse(jobs=page[0], next_page_token=page[1])

    def dispatch_job(self, caller: Caller, request: jobs_pb2.DispatchJobRequest) -> Message | Ticket:
        job = self._shelf.get("job_id", JOBS, jobs_pb2.Job, request.job_id)
        if request.mode not in jobs_pb2.DispatchMode.values():
            raise InvalidRequest.field("mode", f"{request.mode} is not known; allowed: auto, offgrid, disabled")
        if job.state in ENDED:
            return jobs_pb2.DispatchJobResponse(job=job, route=job.route, reason="it has ended")
        return self._ask(caller, commands.DispatchJob(request.job_id, request.mode))

    def watch_job(self, caller: Caller, request: jobs_pb2.WatchJobRequest) -> Stream:
        """The job now and at each change; ends after the last one."""
        stream = Stream()

        def push(job: jobs_pb2.Job) -> None:
            ended = job.state in ENDED
            stream.push(jobs_pb2.WatchJobResponse(job=self._whole(job.job_id) if ended else job))
            if ended:
                stream.end()

        def on_events(events: Sequence[state_pb2.Event]) -> None:
            for event in events:
                if event.HasField("job") and event.job.job_id == request.job_id:
                    push(event.job)

        first = self._shelf.get("job_id", JOBS, jobs_pb2.Job, request.job_id)
        stream.when_closed(self._runtime.watch(on_events))
        push(first)
        return stream

    def _whole(self, job_id: str) -> jobs_pb2.Job:
        job = self._shelf.get("job_id", JOBS, jobs_pb2.Job, job_id)
        result = self._shelf.find(RESULTS, jobs_pb2.JobResult, job_id)
        if result is not None:
            job.result.CopyFrom(result)
        return job

    def _ask(self, caller: Caller, command: object) -> Ticket:
        return self._runtime.ask("jobs", str(caller), command)


class MarketHandlers:
    """MarketService: what core, broker and host say to each other."""

    def __init__(self, runtime: Runtime, self_id: str, keys: Callable[[], Keys], verify: Verifier) -> None:
        self._runtime, self._self_id, self._keys, self._verify = runtime, self_id, keys, verify

    def post_offer(self, caller: Caller, request: jobs_pb2.PostOfferRequest) -> Ticket:
        offer = request.offer
        if offer.host != caller.node_id:
            raise PeerFault(f"{caller.node_id} posted an offer in the name of {offer.host!r}", reason="ForgedOffer")
        if offer.slots > SLOTS_MAX or offer.price_micro > PRICE_MAX:
            raise InvalidRequest.field("offer", f"at most {SLOTS_MAX} slots and a price of {PRICE_MAX} are allowed")
        for name in ("executors", "kinds", "labels", "held"):
            if len(getattr(offer, name)) > OFFER_LISTS_MAX:
                raise InvalidRequest.field(f"offer.{name}", f"at most {OFFER_LISTS_MAX} entries are allowed")
        return self._ask(caller, commands.PostOffer(offer))

    def submit_jobs(self, caller: Caller, request: jobs_pb2.SubmitJobsRequest) -> Ticket:
        _items("orders", len(request.orders))
        orders = tuple((self._order(signed, caller.node_id), signed) for signed in request.orders)
        return self._ask(caller, commands.SubmitJobs(caller.node_id, orders))

    def deliver_awards(self, caller: Caller, request: jobs_pb2.DeliverAwardsRequest) -> Ticket:
        _items("awards", len(request.awards))
        return self._ask(caller, commands.DeliverAwards(caller.node_id, tuple(request.awards)))

    def start_jobs(self, caller: Caller, request: jobs_pb2.StartJobsRequest) -> Ticket:
        _items("starts", len(request.starts))
        starts = tuple(self._start(start, caller.node_id) for start in request.starts)
        return self._ask(caller, commands.StartJobs(caller.node_id, starts))

    def report_results(self, caller: Caller, request: jobs_pb2.ReportResultsRequest) -> Ticket:
        _items("reports", len(request.reports))
        reports = tuple(self._report(report, caller.node_id) for report in request.reports)
        return self._ask(caller, commands.ReportResults(caller.node_id, reports))

    def close_leases(self, caller: Caller, request: jobs_pb2.CloseLeasesRequest) -> Ticket:
        _items("leases", len(request.leases))
        leases = tuple((lease.job_id, lease.attempt) for lease in request.leases)
        return self._ask(caller, commands.CloseLeases(caller.node_id, leases))

    def list_offers(self, caller: Caller, request: jobs_pb2.ListOffersRequest) -> Message:
        broker = self._machine().broker
        return jobs_pb2.ListOffersResponse(entries=list(broker.book()), queued=broker.queued)

    # ---- checks

    def _order(self, signed: common_pb2.Signed, core: str) -> JobOrder:
        """The order, if it is the caller's own and signed by its key in this mesh."""
        order = JobOrder.decode(signed.body)
        if order.core != core:
            raise PeerFault(f"{core} brought an order of {order.core}", reason="ForgedOrder")
        keys = self._keys()
        digest = digest_of(ORDER_KIND, keys.salt, signed.body)
        if not self._verify(keys.current_key(core) or b"", digest, signed.signature):
            raise PeerFault(f"order {order.job_id}: the signature is not {core}'s", reason="BadSignature")
        return order

    def _start(self, start: jobs_pb2.StartJob, core: str) -> commands.Start:
        order = self._order(start.order, core)
        if len(start.payload) != order.payload_bytes or payload_digest(start.payload) != order.payload_digest:
            raise PeerFault(f"order {order.job_id}: the payload is not the one that was ordered", reason="WrongPayload")
        try:
            payload = jobs_pb2.JobPayload.FromString(start.payload)
        except DecodeError as error:
            raise PeerFault(f"order {order.job_id}: the payload is none", reason="MalformedPayload") from error
        check_payload(payload)
        if needs_of(payload) != order.needs:
            raise PeerFault(
                f"order {order.job_id}: needs {order.needs!r} but carries another job", reason="WrongPayload"
            )
        return commands.Start(order, start.order, payload, start.price_micro)

    def _report(self, report: jobs_pb2.AttemptReport, host: str) -> commands.Report:
        key = report.job_id, report.attempt
        if not report.HasField("result"):
            if not report.error:
                raise InvalidRequest.field("reports", f"{report.job_id}: neither a result nor an error")
            return commands.Report(key, report, None)
        return commands.Report(key, report, self._receipt(report, host))

    def _receipt(self, report: jobs_pb2.AttemptReport, host: str) -> ReceiptBody:
        keys, result = self._keys(), report.result
        body = verify_receipt(result.receipt, keys.current_key(host) or b"", self._verify, keys.salt)
        claims = {
            "host": (body.node, host),
            "core": (body.core, self._self_id),
            "job": (body.job_id, report.job_id),
            "attempt": (body.attempt, report.attempt),
            "status": (body.status, result.status),
            "result": (body.result_digest, result_digest(result.exit_code, result.output)),
        }
        for what, (signed, said) in claims.items():
            if signed != said:
                raise PeerFault(f"receipt {report.job_id}: it is for another {what}", reason="ReboundReceipt")
        if (result.exit_code == 0) != (result.status == RESULT_COMPLETED) or result.status not in (
            RESULT_COMPLETED,
            RESULT_FAILED,
        ):
            raise PeerFault(f"receipt {report.job_id}: status and exit code disagree", reason="MalformedReceipt")
        return body

    def _machine(self) -> JobsMachine:
        machine = self._runtime.machines["jobs"]
        assert isinstance(machine, JobsMachine)
        return machine

    def _ask(self, caller: Caller, command: object) -> Ticket:
        return self._runtime.ask("jobs", caller.node_id, command)


def _items(field: str, count: int) -> None:
    if count > CALL_ITEMS_MAX:
        raise InvalidRequest.field(field, f"{count} entries; at most {CALL_ITEMS_MAX} are allowed in one call")
