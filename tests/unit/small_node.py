# ruff: noqa: N802 - handlers are named as the wire has them
"""A node in small for the tests of client and command: real gRPC on a unix socket, real messages, state in memory.

It answers with pages of two, makes one thing per request id, and "runs" jobs at once: the command `wc` counts words,
`false` fails. A transfer is final once it is watched, one to "nobody" never is. `stumble` makes the next calls of a
method fail, as a flooded or restarting node would. It is as long as a node has methods: a few lines for each.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from google.protobuf.message import Message

from offgrid.v1 import (
    common_pb2,
    jobs_pb2,
    ledger_pb2,
    links_pb2,
    mail_pb2,
    mesh_pb2,
    objects_pb2,
    quorum_pb2,
    state_pb2,
)
from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest, NotFound
from offgrid_node.protocol.ids import base32, node_id_bytes, unbase32
from offgrid_node.protocol.ledger.records import BY_HAND, TX_KIND, Tx, encode_meta
from offgrid_node.protocol.ledger.sources import NodeSource
from offgrid_node.protocol.signing import digest_of
from offgrid_node.services.status import to_rpc_status

PAGE = 2
INLINE_MAX = 1_024
NODE_ID, OTHER_ID = "a" * 32, "b" * 32
MESH_ID = "m" * 32
COMPLETED, FAILED = jobs_pb2.JOB_STATE_COMPLETED, jobs_pb2.JOB_STATE_FAILED


class SmallNode:
    """`folder` is its data folder, with offgrid.sock in it."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="og"))  # short: a socket's path has little room
        self.address = f"unix:{self.folder / 'offgrid.sock'}"
        self.calls: dict[str, list[Message]] = defaultdict(list)
        self.deadlines: dict[str, float | None] = {}
        self.metadata: dict[str, str] = {}
        self.missions: dict[str, jobs_pb2.Mission] = {}
        self.tasks: dict[str, jobs_pb2.Task] = {}
        self.jobs: dict[str, jobs_pb2.Job] = {}
        self.inputs: dict[str, bytes] = {}
        self.payloads: dict[str, jobs_pb2.JobPayload] = {}
        self.awaited: dict[str, list[str]] = {}  # by the name of an open WatchJobs stream
        self.cuts = 0  # how many of the next messages of such a stream are its last
        self.events: list[state_pb2.Event] = []
        self.members = [_peer("attic", NODE_ID, here=True), _peer("barn", OTHER_ID)]
        self.progress: list[jobs_pb2.JobProgress] = []  # what a job that runs says, and whether it ends then
        self.progress_ends = True
        self.schedules: dict[str, jobs_pb2.Schedule] = {}
        self.host = jobs_pb2.HostState(state="on", slots_busy=2, unsettled=1)
        self.stuck = False  # it drops nothing of what it keeps
        self.ledger_genesis = ledger_pb2.GetGenesisResponse(mesh="home")
        self.proofs: dict[str, mesh_pb2.GetMemberProofResponse] = {}  # of those whose proof is not `proof`
        self.blocks: list[ledger_pb2.Block] = []
        self.receipt = ledger_pb2.GetReceiptResponse()  # of any transaction
        self.proof = mesh_pb2.GetMemberProofResponse()  # of any member
        self.transactions: dict[str, ledger_pb2.Transaction] = {}
        self.quorums: dict[str, quorum_pb2.Quorum] = {}
        self.mail: dict[int, mail_pb2.GetMailResponse] = {}
        self.messages = {"msg-a": (mail_pb2.Message(message_id="msg-a", source=OTHER_ID, size_bytes=5), b"hello")}
        self.witnesses = [ledger_pb2.Witness(node_id=NODE_ID, name="attic", weight_milli=1_500)]
        self.ledger_open = self.ledger_enabled = True
        self.reach_milli, self.accepted_micro = 2_667, 0  # as the ledger's status has them
        self.lanes, self.key = 0, NodeKey(b"k" * 32)  # of the wallet; the key signs what is made by hand
        self.credit_lines: dict[str, ledger_pb2.CreditLine] = {}
        self.made: dict[str, str] = {}  # request id → what it made
        self.watchers = threading.Condition()
        self._stumbles: dict[str, list[Fault | grpc.StatusCode]] = defaultdict(list)
        self._server: grpc.Server | None = None
        self.start()

    def start(self) -> None:
        server = grpc.server(ThreadPoolExecutor(8))
        for service, module in SERVICES.items():
            handlers = {}
            for method in module.DESCRIPTOR.services_by_name[service.split(".")[-1]].methods:
                if hasattr(self, f"on_{method.name}"):
                    handlers[method.name] = self._handler(method)
            server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        server.add_insecure_port(self.address)
        server.start()
        self._server = server

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def stumble(self, method: str, *failures: Fault | grpc.StatusCode) -> None:
        """The next calls of `method` ("CreateJob") fail so, one after the other."""
        self._stumbles[method].extend(failures)

    def _handler(self, method):
        request_type, response_type = method.input_type._concrete_class, method.output_type._concrete_class

        def before(request, context):
            self.calls[method.name].append(request)
            self.deadlines[method.name] = context.time_remaining()
            self.metadata = dict(context.invocation_metadata())
            if self._stumbles[method.name]:
                self._fail(context, self._stumbles[method.name].pop(0))

        def unary(request, context):
            before(request, context)
            try:
                return getattr(self, f"on_{method.name}")(request)
            except Fault as fault:
                self._fail(context, fault)

        def stream(request, context):
            before(request, context)
            try:
                yield from getattr(self, f"on_{method.name}")(request, context)
            except Fault as fault:
                self._fail(context, fault)

        kind = grpc.unary_stream_rpc_method_handler if method.server_streaming else grpc.unary_unary_rpc_method_handler
        return kind(
            stream if method.server_streaming else unary, request_type.FromString, response_type.SerializeToString
        )

    def _fail(self, context, failure: Fault | grpc.StatusCode) -> None:
        if isinstance(failure, Fault):
            context.abort_with_status(to_rpc_status(failure))
        context.abort(failure, "stumbled")

    # ---- mesh

    def on_GetStatus(self, request):
        return mesh_pb2.GetStatusResponse(
            node_id=NODE_ID, name="attic", mesh="home", mesh_id="m1", version="0.1.0",
            roles=[common_pb2.ROLE_CORE, common_pb2.ROLE_HOST],
            uptime_ms=90_000, peers_alive=2, peers_total=2, journal_seq=len(self.events),
            commit_ms_p50=0.25, commit_mode="inline", data_dir=str(self.folder), slots_total=4,
            notices=["the clock is 3 s behind"], ledger="4 witnesses, 1 pending", coder="isa-l",
        )  # fmt: skip

    def on_ListPeers(self, request):
        shown = [peer for peer in self.members if request.include_removed or not peer.member.removed]
        peers, token = _page(shown, request)
        return mesh_pb2.ListPeersResponse(peers=peers, next_page_token=token)

    def on_CreatePageLink(self, request):
        return mesh_pb2.CreatePageLinkResponse(url="http://127.0.0.1:8001/#code=abc", valid_s=120)

    def on_CreateInvite(self, request):
        return mesh_pb2.CreateInviteResponse(token="og1:secret", invite_id="i-1")

    def on_ListInvites(self, request):
        invites = [mesh_pb2.Invite(invite_id="abcd2", roles=[common_pb2.ROLE_HOST], created_us=1)]
        if not request.open_only:
            invites.append(mesh_pb2.Invite(invite_id="efgh3", created_us=2, used_by=OTHER_ID, used_us=3))
        return mesh_pb2.ListInvitesResponse(invites=invites)

    def on_RevokeInvite(self, request):
        return mesh_pb2.RevokeInviteResponse(invite=mesh_pb2.Invite(invite_id=request.invite))

    def on_RemoveMember(self, request):
        for peer in self.members:
            if request.node in (peer.member.name, peer.member.node_id):
                peer.member.removed = True
                return mesh_pb2.RemoveMemberResponse(member=peer.member)
        raise NotFound(f"no member is called {request.node}", reason="UnknownMember")

    def on_GetMemberProof(self, request):
        return self.proofs.get(request.node, self.proof)

    # ---- missions and tasks

    def on_ListObjects(self, request):
        return objects_pb2.ListObjectsResponse()

    def on_CreateMission(self, request):
        if not request.title:
            raise InvalidRequest.field("title", "must not be empty; 1 to 256 characters are allowed")
        mission_id = self._once(request.request_id, "m")
        made = jobs_pb2.Mission(
            mission_id=mission_id, title=request.title, status="active", created_us=1_700_000_000_000_000
        )
        made.description = request.description
        self.missions.setdefault(mission_id, made)
        self.record(10, "MISSION_CREATED", mission_id, mission=made)
        return jobs_pb2.CreateMissionResponse(mission=made)

    def on_GetMission(self, request):
        return jobs_pb2.GetMissionResponse(mission=_get(self.missions, "mission", request.mission_id))

    def on_ListMissions(self, request):
        missions, token = _page([*self.missions.values()], request)
        return jobs_pb2.ListMissionsResponse(missions=missions, next_page_token=token)

    def on_UpdateMission(self, request):
        mission = _get(self.missions, "mission", request.mission_id)
        for name in ("title", "description", "status"):
            if request.HasField(name):
                setattr(mission, name, getattr(request, name))
        return jobs_pb2.UpdateMissionResponse(mission=mission)

    def on_CreateTask(self, request):
        _get(self.missions, "mission", request.mission_id)
        task_id = self._once(request.request_id, "t")
        made = jobs_pb2.Task(task_id=task_id, mission_id=request.mission_id, name=request.name, kind=request.kind)
        self.tasks.setdefault(task_id, made)
        return jobs_pb2.CreateTaskResponse(task=made)

    def on_GetTask(self, request):
        task = _get(self.tasks, "task", request.task_id)
        states = Counter(job.state for job in self.jobs.values() if job.task_id == task.task_id)
        counts = [jobs_pb2.JobCount(state=state, jobs=jobs) for state, jobs in sorted(states.items())]
        return jobs_pb2.GetTaskResponse(task=task, counts=counts)

    def on_ListTasks(self, request):
        found = [task for task in self.tasks.values() if request.mission_id in ("", task.mission_id)]
        tasks, token = _page(found, request)
        return jobs_pb2.ListTasksResponse(tasks=tasks, next_page_token=token)

    # ---- jobs

    def on_CreateJob(self, request):
        task = _get(self.tasks, "task", request.task_id)
        job = self._job(self._once(request.request_id, "j"), task.task_id, request.job)
        job.request_id = request.request_id
        return jobs_pb2.CreateJobResponse(job=job)

    def _job(self, job_id, task_id, spec):
        task = _get(self.tasks, "task", task_id)
        job = jobs_pb2.Job(
            job_id=job_id, task_id=task.task_id, mission_id=task.mission_id, kind=task.kind,
            timeout_ms=spec.timeout_ms, state=jobs_pb2.JOB_STATE_CREATED, size_tokens=2**40,
            input_name=spec.payload.input_name, input_bytes=len(spec.payload.input), payload_digest=b"\x00\xff",
            payload_bytes=spec.payload.ByteSize(),
        )  # fmt: skip
        process = spec.payload.process
        job.needs = f"process:{process.command}" if spec.payload.HasField("process") else "wasm"
        self.inputs[job_id], self.payloads[job_id] = spec.payload.input, spec.payload
        self.record(14, "JOB_CREATED", job_id, job=job)
        return self.jobs.setdefault(job_id, job)

    def on_DispatchJob(self, request):
        job = _get(self.jobs, "job", request.job_id)
        with self.watchers:
            job.state, job.host, job.attempt = jobs_pb2.JOB_STATE_RUNNING, OTHER_ID, 1
            job.route = jobs_pb2.ROUTE_OFFGRID
            self.watchers.notify_all()
        return jobs_pb2.DispatchJobResponse(job=job, route=job.route, reason="a broker answered")

    def on_RunJobs(self, request):
        if wrong := [n for n, spec in enumerate(request.jobs) if spec.payload.process.command == "/bin/sh"]:
            raise InvalidRequest.field(f"jobs[{wrong[0]}].payload.process.command", "is not a command name")
        stem = self._once(request.request_id, "j")
        job_ids = [f"{stem}-{number:03}" for number in range(len(request.jobs))]
        for job_id, spec in zip(job_ids, request.jobs, strict=True):
            if job_id in self.jobs:
                continue
            made = self._job(job_id, request.task_id, spec)
            made.state, made.host, made.attempt = jobs_pb2.JOB_STATE_RUNNING, OTHER_ID, 1
            made.route = jobs_pb2.ROUTE_OFFGRID
        with self.watchers:
            watched = request.watch in self.awaited
            self.awaited[request.watch].extend(job_ids) if watched else None
            self.watchers.notify_all()
        return jobs_pb2.RunJobsResponse(job_ids=job_ids, watched=watched, route=jobs_pb2.ROUTE_OFFGRID)

    def on_WatchJobs(self, request, context):
        with self.watchers:
            mine = self.awaited[request.watch] = [*self.awaited.pop(request.watch, ()), *request.job_ids]
        yield jobs_pb2.WatchJobsResponse()
        while context.is_active():
            with self.watchers:
                self.watchers.wait_for(lambda: mine, 0.05)
                ended, mine[:] = [self.jobs[job_id] for job_id in mine], []
            for job in ended:
                self._run(job) if job.state == jobs_pb2.JOB_STATE_RUNNING else None
            if ended:
                large = [job.job_id for job in ended if len(job.result.output) > INLINE_MAX]
                yield jobs_pb2.WatchJobsResponse(jobs=[j for j in ended if j.job_id not in large], large=large)
                if self.cuts:  # the connection is lost
                    self.cuts -= 1
                    with self.watchers:
                        self.awaited.pop(request.watch, None)
                    self._fail(context, grpc.StatusCode.UNAVAILABLE)
        with self.watchers:
            if self.awaited.get(request.watch) is mine:
                del self.awaited[request.watch]

    def on_CancelJobs(self, request):
        named = [self.jobs[job_id] for job_id in request.job_ids if job_id in self.jobs]
        wanted = [j for j in self.jobs.values() if j.task_id == request.task_id] if request.task_id else named
        cancelled = [job for job in wanted if job.state not in (COMPLETED, FAILED, jobs_pb2.JOB_STATE_CANCELLED)]
        for job in cancelled:
            job.state, job.error, job.error_detail = jobs_pb2.JOB_STATE_CANCELLED, "Cancelled", request.reason
        return jobs_pb2.CancelJobsResponse(job_ids=[job.job_id for job in cancelled])

    def on_GetJob(self, request):
        return jobs_pb2.GetJobResponse(job=_get(self.jobs, "job", request.job_id))

    def on_ListJobs(self, request):
        found = [j for j in self.jobs.values() if request.task_id in ("", j.task_id)]
        found = found[::-1] if request.newest_first else found
        jobs, token = _page([j for j in found if not request.states or j.state in request.states], request)
        return jobs_pb2.ListJobsResponse(jobs=jobs, next_page_token=token)

    def on_WatchJob(self, request, context):
        job = _get(self.jobs, "job", request.job_id)
        yield jobs_pb2.WatchJobResponse(job=job)
        if job.state == jobs_pb2.JOB_STATE_RUNNING:
            self._run(job)
            yield jobs_pb2.WatchJobResponse(job=job)

    def _run(self, job: jobs_pb2.Job) -> None:
        data = self.inputs[job.job_id]
        facts = jobs_pb2.ReceiptFacts(
            node_id=OTHER_ID, job_id=job.job_id, attempt=1, result_digest=b"\x01" * 32, compute_tokens_m=1.5,
            latency_ms=12.5, price_micro=1000, executor="process:wc", status="completed",
        )  # fmt: skip
        job.state = FAILED if job.needs == "process:false" else COMPLETED
        job.result.status = "failed" if job.state == FAILED else "completed"
        job.result.output = f"{len(data.split())} words\n".encode()
        job.result.receipt.facts.CopyFrom(facts)
        if job.state == FAILED:
            job.error, job.error_detail, job.result.exit_code = "ExecutionFailed", "exit code 1", 1
        self.record(19, "JOB_COMPLETED", job.job_id, job=job)

    def on_ListOffers(self, request):
        offer = jobs_pb2.Offer(offer_id=1, slots=4, executors=["wasm"], ask_micro=1000)
        profile = jobs_pb2.HostProfile(host=OTHER_ID, name="barn", slots=4, labels={"room": "barn"})
        entry = jobs_pb2.BookEntry(profile=profile, offers=[offer], slots_free=3, alive=True, reputation=0.5)
        return jobs_pb2.ListOffersResponse(entries=[entry], queued=2)

    def on_ExplainJob(self, request):
        job = _get(self.jobs, "job", request.job_id)
        verdicts = [
            jobs_pb2.HostVerdict(
                host=OTHER_ID, able=True, wins=True, reason="it wins", score=1_320_000, ask_micro=1000
            ),
            jobs_pb2.HostVerdict(host=NODE_ID, reason="does not offer process:wc"),
        ]
        return jobs_pb2.ExplainJobResponse(job=job, story="It waits.", broker=NODE_ID, verdicts=verdicts)

    def on_WatchProgress(self, request, context):
        job = _get(self.jobs, "job", request.job_id)
        for told in self.progress:
            yield jobs_pb2.WatchProgressResponse(progress=told)
        while context.is_active() and job.state == jobs_pb2.JOB_STATE_RUNNING and not self.progress_ends:
            time.sleep(0.02)
        if not context.is_active():
            return
        if job.state == jobs_pb2.JOB_STATE_RUNNING:
            self._run(job)
        yield jobs_pb2.WatchProgressResponse(job=job)

    # ---- schedules

    def on_CreateSchedule(self, request):
        made = request.schedule
        if len(made.cron.split()) != 5:
            raise InvalidRequest.field("schedule.cron", "five fields are allowed, as in crontab(5)")
        made.schedule_id, made.next_us = self._once(request.request_id, "s"), 1_700_000_000_000_000
        self.schedules.setdefault(made.schedule_id, made)
        return jobs_pb2.CreateScheduleResponse(schedule=made)

    def on_ListSchedules(self, request):
        schedules, token = _page([*self.schedules.values()], request)
        return jobs_pb2.ListSchedulesResponse(schedules=schedules, next_page_token=token)

    def on_UpdateSchedule(self, request):
        schedule = _get(self.schedules, "schedule", request.schedule_id)
        if request.HasField("paused"):
            schedule.paused = request.paused
        return jobs_pb2.UpdateScheduleResponse(schedule=schedule)

    def on_DeleteSchedule(self, request):
        del self.schedules[_get(self.schedules, "schedule", request.schedule_id).schedule_id]
        return jobs_pb2.DeleteScheduleResponse()

    # ---- the host

    def on_GetHost(self, request):
        return jobs_pb2.GetHostResponse(host=self.host)

    def on_ToggleHost(self, request):
        if request.state not in ("on", "off", "drain"):
            raise InvalidRequest.field("state", "allowed: on, off, drain")
        self.host.state = "draining" if request.state == "drain" else request.state
        return jobs_pb2.ToggleHostResponse(host=self.host)

    def on_DropKept(self, request):
        """A page of them."""
        (kept,) = [each for each in self.host.kept if each.owner == request.owner] or [jobs_pb2.KeptFor()]
        dropped = 0 if self.stuck else min(256, kept.objects)
        kept.objects -= dropped
        if not kept.objects and kept in self.host.kept:
            self.host.kept.remove(kept)
        return jobs_pb2.DropKeptResponse(dropped=dropped, left=kept.objects)

    def on_WatchDrain(self, request, context):
        while True:
            yield jobs_pb2.WatchDrainResponse(host=self.host)
            if not self.host.slots_busy:
                break
            self.host.slots_busy -= 1
        self.host.state = "drained"
        yield jobs_pb2.WatchDrainResponse(host=self.host)

    # ---- state and the small rooms

    def record(self, etype: int, name: str, subject: str, **data: Message) -> None:
        with self.watchers:
            stamp = 1_700_000_000_000_000 + len(self.events)
            self.events.append(
                state_pb2.Event(
                    seq=len(self.events) + 1, etype=etype, type=name, subject=subject, timestamp_us=stamp, **data
                )
            )
            self.watchers.notify_all()

    def on_ListEvents(self, request):
        found = [e for e in self.events if (not request.etypes or e.etype in request.etypes)]
        found = [e for e in found if e.timestamp_us >= request.since_us and request.subject in ("", e.subject)]
        events, token = _page(found[::-1] if request.newest_first else found, request)
        return state_pb2.ListEventsResponse(events=events, next_page_token=token)

    def on_WatchEvents(self, request, context):
        seq = request.after_seq
        while context.is_active():
            with self.watchers:
                if len(self.events) == seq:
                    self.watchers.wait(0.05)
                fresh, seq = self.events[seq:], len(self.events)
            for event in fresh:
                if not request.etypes or event.etype in request.etypes:
                    yield state_pb2.WatchEventsResponse(event=event)

    def on_GetCapacity(self, request):
        return objects_pb2.GetCapacityResponse(inline_limit_bytes=3_000_000)

    def on_ListWeights(self, request):
        return quorum_pb2.ListWeightsResponse(total_milli=2000, alive_milli=1000)

    def on_CreateQuorum(self, request):
        members = [
            quorum_pb2.NodeWeight(node_id=p.member.node_id, name=p.member.name, weight_milli=1500, alive=True)
            for p in self.members
            if not request.members or p.member.name in request.members
        ]
        made = quorum_pb2.Quorum(
            quorum_id=request.quorum_id, owner=NODE_ID, epoch=1, required_milli=request.required_milli,
            members=members, created_us=1_700_000_000_000_000,
        )  # fmt: skip
        return quorum_pb2.CreateQuorumResponse(quorum=self.quorums.setdefault(request.quorum_id, made))

    def on_AckQuorum(self, request):
        quorum = _get(self.quorums, "quorum", request.quorum_id)
        member = next(m for m in quorum.members if m.name == (request.node or "attic"))
        quorum.acks.add(node_id=member.node_id, weight_milli=member.weight_milli, acked_us=1_700_000_001_000_000)
        quorum.acked_milli += member.weight_milli
        quorum.reached = quorum.acked_milli >= quorum.required_milli
        return quorum_pb2.AckQuorumResponse(quorum=quorum)

    def on_GetQuorum(self, request):
        return quorum_pb2.GetQuorumResponse(quorum=_get(self.quorums, "quorum", request.quorum_id))

    def on_ListQuorums(self, request):
        shown = [q for name, q in self.quorums.items() if request.with_objects or not name.startswith("object:")]
        quorums, token = _page(shown, request)
        return quorum_pb2.ListQuorumsResponse(quorums=quorums, next_page_token=token)

    # ---- mail

    def on_SendMail(self, request):
        made = mail_pb2.Mail(number=len(self.mail) + 1, destination=OTHER_ID, state=mail_pb2.MAIL_STATE_WAITING)
        self.mail[made.number] = mail_pb2.GetMailResponse(mail=made)
        return mail_pb2.SendMailResponse(mail=made)

    def on_GetMail(self, request):
        return _get(self.mail, "mail", request.number)

    def on_ListMail(self, request):
        mail, token = _page([each.mail for each in self.mail.values()], request)
        return mail_pb2.ListMailResponse(mail=mail, next_page_token=token)

    def on_ListMessages(self, request):
        found = [message for message, _ in self.messages.values()]
        messages, token = _page(found[::-1] if request.newest_first else found, request)
        return mail_pb2.ListMessagesResponse(messages=messages, next_page_token=token)

    def on_ReadMessage(self, request):
        message, data = _get(self.messages, "message", request.message_id)
        return mail_pb2.ReadMessageResponse(message=message, data=data)

    def on_DeleteMessage(self, request):
        _get(self.messages, "message", request.message_id)
        del self.messages[request.message_id]
        return mail_pb2.DeleteMessageResponse()

    def on_GetMailbox(self, request):
        parcels = [
            mail_pb2.HeldParcel(source=NODE_ID, destination=OTHER_ID, number=n, size_bytes=200) for n in (7, 8, 9)
        ]
        page, token = _page(parcels, request)
        return mail_pb2.GetMailboxResponse(
            parcels=page, next_page_token=token, count=3, used_bytes=600, limit_bytes=16_777_216
        )

    # ---- ledger

    def on_GetGenesis(self, request):
        return self.ledger_genesis

    def on_ListEpochs(self, request):
        return ledger_pb2.ListEpochsResponse()

    def on_OpenLedger(self, request):
        genesis = ledger_pb2.GetGenesisResponse(
            mesh="home",
            open=True,
            quorum_milli=2_667,
            faults_survived=len(request.witnesses) // 4,
            fee_micro=request.fee_micro if request.HasField("fee_micro") else 1_000,
        )
        genesis.witnesses.extend(request.witnesses)
        genesis.balances.extend(request.balances)
        return ledger_pb2.OpenLedgerResponse(genesis=genesis)

    def on_ListBlocks(self, request):
        newest, count = len(self.blocks), request.count or 1_000
        first = request.first or max(1, newest - count + 1)
        blocks = self.blocks[first - 1 : first - 1 + count]
        positions = range(first, first + len(blocks))
        return ledger_pb2.ListBlocksResponse(blocks=blocks, first=first, newest=newest, positions=positions)

    def on_GetReceipt(self, request):
        return self.receipt

    def on_GetLedgerStatus(self, request):
        return ledger_pb2.GetLedgerStatusResponse(
            enabled=self.ledger_enabled, open=self.ledger_open, quorum_milli=2_667, pending=1, owed_micro=50_000,
            fees_micro=1_000,
            fee_micro=2_500, supply_micro=2 * 10**12, notices=["this node is mute"],
            heads=[ledger_pb2.Head(author=OTHER_ID, height=7, digest=b"\x0b" * 32)],
            witnesses=self.witnesses, reach_milli=self.reach_milli, pending_out_micro=12_501_000,
            pending_in_micro=7_000_000, accepted_in_micro=self.accepted_micro,
        )  # fmt: skip

    def on_GetWallet(self, request):
        names = ["attic", *(f"attic/{lane}" for lane in range(1, self.lanes + 1))]
        wallet = ledger_pb2.GetWalletResponse()
        for lane, name in enumerate(names):
            balance = ledger_pb2.Balance(account=NODE_ID, name=name, final_micro=1_500_000)
            wallet.accounts.add(lane=lane, balance=balance, in_flight="" if lane else "c0ffee00" * 8)
        return wallet

    def on_OpenLanes(self, request):
        self.lanes = max(self.lanes, request.count)
        return ledger_pb2.OpenLanesResponse(wallet=self.on_GetWallet(request))

    def on_CreateTransaction(self, request):
        outputs = ((node_id_bytes(OTHER_ID), request.amount_micro),)
        source = NodeSource(node_id_bytes(self.key.node_id))
        tx = Tx(source, 3, bytes(32), 1_000, outputs, encode_meta(request.meta), BY_HAND)
        return ledger_pb2.CreateTransactionResponse(body=tx.encode(), mesh_id=MESH_ID)

    def on_SignTransaction(self, request):
        digest = digest_of(TX_KIND, unbase32(MESH_ID)[:16], request.body)
        return ledger_pb2.SignTransactionResponse(
            signed=common_pb2.Signed(body=request.body, signature=self.key.sign(digest))
        )

    def on_SendTransaction(self, request):
        digest = digest_of(TX_KIND, unbase32(MESH_ID)[:16], request.signed.body)
        if not verify(self.key.public_key, digest, request.signed.signature):
            raise InvalidRequest.field("signed.signature", "not by the key of the account")
        tx = ledger_pb2.Transaction(
            tx_id=base32(digest), src=self.key.node_id, state=ledger_pb2.TX_STATE_SIGNED, quorum_milli=3_000,
            outputs=[ledger_pb2.Output(account=OTHER_ID, name="barn", amount_micro=1)], signed=request.signed,
        )  # fmt: skip
        return ledger_pb2.SendTransactionResponse(transaction=self.transactions.setdefault(tx.tx_id, tx))

    def on_SetCreditLine(self, request):
        line = ledger_pb2.CreditLine(payer=OTHER_ID, payer_name=request.payer, amount_micro=request.amount_micro)
        self.credit_lines[request.payer] = line
        return ledger_pb2.SetCreditLineResponse(line=line)

    def on_ListCreditLines(self, request):
        return ledger_pb2.ListCreditLinesResponse(lines=self.credit_lines.values())

    def on_GetBalance(self, request):
        name = request.account or "attic"
        if name not in ("attic", "barn"):
            raise NotFound(f"no member is called {name!r}", reason="NoSuchNode")
        balance = _balance(name)
        balance.accepted_in_micro = self.accepted_micro
        return ledger_pb2.GetBalanceResponse(balance=balance)

    def on_ListBalances(self, request):
        balances, token = _page([_balance(name) for name in ("attic", "barn", "shed")], request)
        return ledger_pb2.ListBalancesResponse(
            balances=balances, next_page_token=token, fees_micro=1_000, supply_micro=2 * 10**12
        )

    def on_CreateTransfer(self, request):
        tx = ledger_pb2.Transaction(
            tx_id=self._once(request.request_id, "c0ffee00").ljust(64, "0"), src=NODE_ID, src_name="attic", seq=3,
            fee_micro=request.fee_micro or 1_000, meta=request.meta, state=ledger_pb2.TX_STATE_SIGNED,
            voted_milli=1_000, quorum_milli=3_000, created_us=1_700_000_000_000_000,
            outputs=[ledger_pb2.Output(account=OTHER_ID, name=request.dst, amount_micro=request.amount_micro)],
        )  # fmt: skip
        return ledger_pb2.CreateTransferResponse(transaction=self.transactions.setdefault(tx.tx_id, tx))

    def on_UnlockSlot(self, request):
        if not self.transactions:
            raise FailedPrecondition("no transaction of this account is under way", reason="NothingUnderWay")
        return ledger_pb2.UnlockSlotResponse(transaction=[*self.transactions.values()][-1])

    def on_GetTransaction(self, request):
        return ledger_pb2.GetTransactionResponse(transaction=_get(self.transactions, "transaction", request.tx_id))

    def on_WatchTransaction(self, request, context):
        tx = _get(self.transactions, "transaction", request.tx_id)
        yield ledger_pb2.WatchTransactionResponse(transaction=tx)
        while tx.outputs[0].name == "nobody":
            if not context.is_active():
                return
            time.sleep(0.01)
        tx.state, tx.voted_milli, tx.confirmed_milli = ledger_pb2.TX_STATE_FINAL, 3_000, 3_000
        yield ledger_pb2.WatchTransactionResponse(transaction=tx)

    def on_ListTransactions(self, request):
        found = [tx for tx in self.transactions.values() if request.account in ("", "attic", tx.outputs[0].name)]
        found = [tx for tx in found if not request.open or tx.state < ledger_pb2.TX_STATE_FINAL]
        transactions, token = _page(found[::-1], request)
        return ledger_pb2.ListTransactionsResponse(transactions=transactions, next_page_token=token)

    def on_ListBookings(self, request):
        booked = [
            ledger_pb2.Booking(job_id=f"j-{n}", attempt=1, payee=OTHER_ID, payee_name="barn", amount_micro=50_000,
                               fee_micro=1_000, action="compute", tx_id="c0ffee" * 10 if n else "", owed=not n)
            for n in range(3)
        ]  # fmt: skip
        bookings, token = _page([b for b in booked if request.job_id in ("", b.job_id)], request)
        return ledger_pb2.ListBookingsResponse(bookings=bookings, next_page_token=token, owed_micro=50_000)

    def _once(self, request_id: str, prefix: str) -> str:
        return self.made.setdefault(request_id, f"{prefix}-{len(self.made) + 1}")


SERVICES = {
    "offgrid.v1.MeshService": mesh_pb2,
    "offgrid.v1.LinkService": links_pb2,
    "offgrid.v1.JobService": jobs_pb2,
    "offgrid.v1.HostService": jobs_pb2,
    "offgrid.v1.MarketService": jobs_pb2,
    "offgrid.v1.StateService": state_pb2,
    "offgrid.v1.MemoryService": state_pb2,
    "offgrid.v1.ObjectService": objects_pb2,
    "offgrid.v1.QuorumService": quorum_pb2,
    "offgrid.v1.LedgerService": ledger_pb2,
    "offgrid.v1.MailService": mail_pb2,
}


def _balance(name: str) -> ledger_pb2.Balance:
    return ledger_pb2.Balance(
        account=NODE_ID, name=name, final_micro=999_987_499_000, pending_out_micro=12_501_000, next_seq=4
    )


def _peer(name: str, node_id: str, *, here: bool = False) -> mesh_pb2.Peer:
    member = mesh_pb2.Member(node_id=node_id, name=name, roles=[common_pb2.ROLE_HOST], weight_milli=1500, epoch=1)
    return mesh_pb2.Peer(
        member=member, liveness=common_pb2.LIVENESS_ALIVE, roles_in_force=[common_pb2.ROLE_HOST],
        addresses=["192.0.2.1:7440"], version="0.1.0", self=here,
    )  # fmt: skip


def _get(rows, what: str, row_id: str):
    if row_id not in rows:
        raise NotFound(f"there is no {what} {row_id}", metadata={"id": str(row_id)})
    return rows[row_id]


def _page(rows, request):
    start = int(request.page_token or 0)
    end = start + min(request.page_size or PAGE, PAGE)
    return rows[start:end], str(end) if end < len(rows) else ""
