"""The prototype's paths between machines: a broker's /auction, a host's /toggle and /run (docs/http.md).

/auction asks who would get a job now, and for how much: the broker's own clearing over its hosts' standing offers. It
awards nothing; the prototype's core then sends the work to the winner's /run. That runs it in this node's own queue,
under its own limits, and signs a receipt as for any job; the same `job_id` with the same work is run once.
"""

from __future__ import annotations

import hashlib

from starlette.requests import Request

from offgrid.v1 import jobs_pb2
from offgrid_node.gateway.calling import call
from offgrid_node.gateway.gateway_urls import GatewayUrls
from offgrid_node.gateway.job_end import job_within
from offgrid_node.gateway.node_view import NodeView
from offgrid_node.gateway.offered_models import offered_models
from offgrid_node.gateway.old_bodies import Bodies, Query
from offgrid_node.gateway.old_payloads import COMPUTE, LLM_CALL, Said, flag_in, payload_of, spec_of, text_in, tokens_of
from offgrid_node.gateway.old_shapes import Document, job_document, quote_document
from offgrid_node.protocol.errors import AlreadyExists, InvalidRequest, Unavailable
from offgrid_node.protocol.events import BROKER, HOST
from offgrid_node.protocol.jobs.bounds import check_order
from offgrid_node.protocol.jobs.catalogue import KINDS
from offgrid_node.protocol.jobs.machine import JobsMachine
from offgrid_node.protocol.jobs.needs import needs_of
from offgrid_node.protocol.jobs.orders import DIGEST_BYTES, JobOrder
from offgrid_node.protocol.jobs.prices import price_of
from offgrid_node.services.access import check_role

QUOTES_MAX = 64
RUN_MISSION, RUN_ID = "jobs that came to /run", "old-paths:run"
RUN_REASON = "it was sent to this host"
QUEUE_WAIT_S = 30.0  # for a free slot, beyond a job's own time
TOGGLES = ("on", "off", "drain")


class OldMarket:
    """One method per path."""

    def __init__(self, view: NodeView, bodies: Bodies, urls: GatewayUrls) -> None:
        self._view, self._bodies, self._urls = view, bodies, urls
        self._tasks: dict[str, str] = {}  # of /run, by kind

    async def auction(self, request: Request) -> Document:
        said = await self._bodies.read(request, between_machines=True)
        check_role("/auction", BROKER, self._view.own_roles())
        order = self._order(said)
        broker = self._view.runtime.machine("jobs", JobsMachine).broker
        found = broker.explain(order)
        able = [verdict for verdict in found.verdicts if verdict.able][:QUOTES_MAX]
        if not able or not able[0].wins:
            names = {entry.profile.host: entry.profile.name for entry in broker.entries()}
            why = "; ".join(f"{names.get(each.host) or each.host}: {each.reason}" for each in found.verdicts[:3])
            raise Unavailable(
                f"no host takes a job of kind {order.kind} that needs {order.needs} now: "
                f"{why or 'no host offers anything'} (all offers: offgrid market, GET /v1/offers)",
                reason="NoHostsAvailable",
                retry_ms=2_000,
            )
        await self._urls.learn(each.host for each in able)
        known = {entry.profile.host: entry for entry in broker.entries()}
        quotes = []
        for verdict in able:
            price_micro = price_of(found.price_micro if verdict.wins else verdict.ask_micro, order.size_tokens)
            quote = quote_document(verdict.host, self._urls.url_of(verdict.host), price_micro)
            if (entry := known.get(verdict.host)) is not None:
                quote |= {
                    "name": entry.profile.name,
                    "reputation": entry.reputation,
                    "latency_ms": entry.latency_ms,
                    "slots_free": entry.slots_free,
                }
            quotes.append(quote)
        return {
            "ok": True,
            "job_id": order.job_id,
            "type": order.kind,
            "needs": order.needs,
            "size": order.size_tokens / 1_000_000,
            "broker": self._view.node_id,
            "host": quotes[0]["host"],
            "winner": quotes[0],
            "quote": quotes[0],
            "quotes": quotes,
        }

    async def toggle(self, request: Request) -> Document:
        """To what the body says (`enabled`, or `state`: on, off or drain), or to the other of on and off."""
        said = await self._bodies.read(request)
        state, enabled = text_in(said, "state").lower(), flag_in(said, "enabled")
        if state and state not in TOGGLES:
            raise InvalidRequest.field("state", f"{state[:64]!r}; allowed: {', '.join(TOGGLES)}")
        if not state:
            if enabled is None:
                enabled = (await self._host()).state != "on"
            state = "on" if enabled else "off"
        answer = await call(
            self._view.router,
            "offgrid.v1.HostService/ToggleHost",
            jobs_pb2.ToggleHostRequest(state=state),
            jobs_pb2.ToggleHostResponse,
        )
        host = answer.host
        return {"ok": True, "enabled": host.state == "on", "state": host.state, "detail": host.detail}

    async def run(self, request: Request) -> Document:
        said = await self._bodies.read(request, between_machines=True)
        check_role("/run", HOST, self._view.own_roles())
        host = await self._host()
        if host.state != "on":
            text = f"this host takes no new work: it is {host.state} (offgrid host toggle on, or POST /toggle)"
            raise Unavailable(text, reason="HostOff")
        kind, job_id = _kind_of(said), text_in(said, "job_id", "id")
        spec = spec_of(kind, said, offered_models(self._view))
        message = jobs_pb2.RunJobsRequest(
            task_id=await self._task(kind),
            jobs=[spec],
            mode=jobs_pb2.DISPATCH_MODE_DISABLED,
            request_id=_request_id(job_id),
        )
        try:
            sent = await call(self._view.unbound, "offgrid.v1.JobService/RunJobs", message, jobs_pb2.RunJobsResponse)
        except AlreadyExists as fault:
            text = f"job_id {job_id[:64]!r} came with other work before; take another one"
            raise AlreadyExists(text, reason="JobIdReused", metadata=fault.metadata) from fault
        timeout_ms = spec.timeout_ms or self._view.config.jobs.timeout_ms
        wait_s = Query(request).wait_s(timeout_ms / 1_000 + QUEUE_WAIT_S)
        job = await job_within(self._view.router, sent.job_ids[0], wait_s)
        document = job_document(job, self._urls.url_of)
        result = document["result"] or {}
        return document | {
            "job_id": job_id or job.job_id,
            "reason": job.waiting or RUN_REASON,
            "ok": bool(result.get("ok")),
            "host": self._view.url(),
            "offgrid_receipt": result.get("offgrid_receipt"),
        }

    # ---- inside

    async def _host(self) -> jobs_pb2.HostState:
        request = jobs_pb2.GetHostRequest()
        return (await call(self._view.router, "offgrid.v1.HostService/GetHost", request, jobs_pb2.GetHostResponse)).host

    async def _task(self, kind: str) -> str:
        """One mission and one task a kind have them all, whoever sent them and however often this node restarts."""
        if kind not in self._tasks:
            made = await call(
                self._view.unbound,
                "offgrid.v1.JobService/CreateMission",
                jobs_pb2.CreateMissionRequest(title=RUN_MISSION, request_id=RUN_ID),
                jobs_pb2.CreateMissionResponse,
            )
            task = await call(
                self._view.unbound,
                "offgrid.v1.JobService/CreateTask",
                jobs_pb2.CreateTaskRequest(
                    mission_id=made.mission.mission_id, name=kind, kind=kind, request_id=f"{RUN_ID}:{kind}"
                ),
                jobs_pb2.CreateTaskResponse,
            )
            self._tasks[kind] = task.task.task_id
        return self._tasks[kind]

    def _order(self, said: Said) -> JobOrder:
        """As a core would sign it; a broker sees no more of a job than kind, needs and size."""
        kind, config = _kind_of(said), self._view.config.jobs
        order = JobOrder(
            core=self._view.node_id,
            job_id=text_in(said, "job_id", "id") or "auction",
            attempt=1,
            kind=kind,
            needs=text_in(said, "needs") or self._needs(kind, said),
            size_tokens=tokens_of(said) or 1,
            payload_bytes=0,
            payload_digest=bytes(DIGEST_BYTES),
            timeout_ms=config.timeout_ms,
            price_max_micro=config.price_max_micro,
            requirements=text_in(said, "requirements"),
        )
        check_order("body", order)
        return order

    def _needs(self, kind: str, said: Said) -> str:
        """Of a job whose work is not told: what any host can do, or any model."""
        models = offered_models(self._view)
        if "payload" in said:
            return needs_of(payload_of(kind, said["payload"], models))
        if kind == LLM_CALL:
            return f"llm:{text_in(said, 'model') or next(iter(models), '')}"
        return "builtin:echo"


def _request_id(job_id: str) -> str:
    """The sender's own choice, in characters that request ids have."""
    return f"run:{hashlib.blake2b(job_id.encode(), digest_size=20).hexdigest()}" if job_id else ""


def _kind_of(said: Said) -> str:
    kind = text_in(said, "type", "kind") or COMPUTE
    if kind not in KINDS:
        raise InvalidRequest.field("type", f"{kind[:64]!r} is not known; allowed: {', '.join(KINDS)}")
    return kind
