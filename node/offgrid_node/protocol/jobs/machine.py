"""The jobs domain's machine: hands each input to the part that it concerns and closes the step."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Asked, Effect, Executed, Filled, Rows, Woke
from offgrid_node.protocol.errors import Internal
from offgrid_node.protocol.events import PeerDown, PeerUp
from offgrid_node.protocol.jobs import commands
from offgrid_node.protocol.jobs.broker import Broker
from offgrid_node.protocol.jobs.catalogue import Catalogue
from offgrid_node.protocol.jobs.core import Core
from offgrid_node.protocol.jobs.host import Host
from offgrid_node.protocol.jobs.intake import Intake
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post, Tag
from offgrid_node.protocol.jobs.schedules import Cron, NeverDue, Schedules
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.requests import Requests
from offgrid_node.protocol.rng import Rng


class JobsMachine:
    """Core, broker and host of one node; which of them is asked for anything is a matter of the access table."""

    def __init__(
        self,
        settings: JobsSettings,
        executing: Callable[[], Collection[ClaimKey]] = frozenset,
        cron: Cron | None = None,
        at_death: Callable[[], Collection[bytes]] = frozenset,
    ) -> None:
        """`executing` and `at_death` as Host has them. Without a `cron` no schedule is ever due."""
        self._peers, self._post = Peers(settings.paces), Post(settings)
        requests = Requests(self._post)
        self.catalogue = Catalogue(self._post, requests)
        self.broker = Broker(settings, self._peers, self._post)
        self.host = Host(settings, self._peers, self._post, executing, at_death)
        self.core = Core(settings, self._peers, self._post, self.host)
        self.intake = Intake(settings, self._peers, self._post, requests, self.core)
        self.schedules = Schedules(self._post, requests, self.intake, cron or NeverDue())

    def load(self, rows: Rows, now: Now) -> None:
        self.catalogue.load(rows)
        self.broker.load(rows, now)
        self.host.load(rows, now)
        self.core.load(rows, now)
        self.intake.load()
        self.schedules.load(rows, now)

    def deadline_ms(self) -> int | None:
        parts = self.core, self.broker, self.host, self.schedules, self._post, self.intake.releases
        deadlines = [part.deadline_ms() for part in parts]
        return min((due for due in deadlines if due is not None), default=None)

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        self.core.begin(now)
        self.broker.begin(now)
        self.intake.releases.begin_step(now)
        # Before anything wakes: a lease whose work ended while the machines were replaced must not be given back.
        self.host.on_executed([event for event in inputs if isinstance(event, Executed)], now)
        for event in inputs:
            match event:
                case Asked(ticket, _, command):
                    self._ask(ticket, command, now, rng)
                case Answered(Tag() as tag):
                    self._answer(tag, event, now, rng)
                case Executed():
                    pass
                case Filled():
                    self.intake.releases.on_filled(event, now, rng)
                case commands.Arriving():
                    self.core.reports.on_arriving(event, now)
                case commands.BrokerPreferred(node_id):
                    self.core.preferred_broker(node_id)
                case commands.Dropped():
                    self.core.local.drops.on_dropped(event, now)
                case PeerUp(node_id, name, roles):
                    self._peers.on_up(event)
                    self.broker.on_peer_up(node_id)
                    self.core.on_peer_up(node_id, roles, now)
                    self.host.rules.on_peer_up(node_id, name)
                    self.host.on_peer_up(roles, node_id, now)
                case PeerDown(node_id):
                    self._peers.on_down(event)
                    self.broker.on_peer_down(node_id, now)
                    self.core.on_peer_down(node_id, now, rng)
                case Woke():
                    self.host.on_wake(now)
                    self.broker.on_wake(now)
                    self.core.on_wake(now, rng)
                    self.schedules.on_wake(now, rng)
                case _:
                    raise Internal(f"the jobs machine does not know {type(event).__name__}")
        self._close_step(now, rng)
        return self._post.take(now)

    def _ask(self, ticket: int, command: object, now: Now, rng: Rng) -> None:
        match command:
            case commands.CreateMission():
                self.catalogue.on_create_mission(ticket, command, now, rng)
            case commands.UpdateMission():
                self.catalogue.on_update_mission(ticket, command, now)
            case commands.CreateTask():
                self.catalogue.on_create_task(ticket, command, now, rng)
            case commands.CreateJob():
                self.intake.on_create(ticket, command, now, rng)
            case commands.DispatchJob():
                self.intake.on_dispatch(ticket, command, now, rng)
            case commands.CancelJobs():
                self.intake.on_cancel(ticket, command, now)
            case commands.CountJobs():
                self.intake.on_count(ticket, command)
            case commands.CreateSchedule():
                self.schedules.on_create(ticket, command, now, rng)
            case commands.UpdateSchedule():
                self.schedules.on_update(ticket, command, now)
            case commands.DeleteSchedule():
                self.schedules.on_delete(ticket, command)
            case commands.RunJobs():
                self.intake.on_run(ticket, command, now, rng)
            case commands.PostOffers():
                self.broker.on_offers(ticket, command, now)
            case commands.SubmitJobs():
                self.broker.on_submit(ticket, command, now)
            case commands.DeliverAwards():
                self.core.broker_answers.on_awards(ticket, command, now, rng)
            case commands.StartJobs():
                self.host.on_start(ticket, command, now)
            case commands.ToggleHost():
                self.host.on_toggle(ticket, command, now)
            case commands.StopHost():
                self.host.on_stop(ticket)
            case commands.RenewLeases():
                self.core.renewals.on_renew(ticket, command, now)
            case commands.CancelStarts():
                self.host.on_cancel(ticket, command, now)
            case commands.ReportResults():
                self.core.reports.on_reports(ticket, command, now, rng)
            case commands.CloseLeases():
                self.broker.on_close(ticket, command, now)
            case _:
                raise Internal(f"the jobs machine does not know {type(command).__name__}")

    def _answer(self, tag: Tag, answer: Answered, now: Now, rng: Rng) -> None:
        match tag.what:
            case "SubmitJobs":
                self.core.broker_answers.on_submitted(tag, answer, now, rng)
            case "StartJobs":
                self.core.launching.on_started(tag, answer, now, rng)
            case "CancelStarts":
                self.core.stops.on_answered(tag, answer, now)
            case "ReportResults":
                self.host.on_reported(tag, answer, now)
            case "RenewLeases":
                self.host.on_renewed(tag, answer, now)
            case "DeliverAwards":
                self.broker.on_awards_answered(tag, answer, now)
            case "PostOffers":
                self.host.offering.on_offered(tag.node, answer, now)
            case _:
                pass  # CloseLeases, Settled: what was lost heals by itself

    def _close_step(self, now: Now, rng: Rng) -> None:
        """What follows from the whole batch; a local job that ends frees a slot for the next one in line."""
        self.broker.clear(now)
        while True:
            self.core.redundant.pump(now, rng)
            self.intake.releases.pump(now, rng)
            self.core.local.pump(now)
            reports = self.host.local_reports.take()
            for report, added in reports:
                self.core.reports.on_local_report(report, added, now, rng)
            if not reports and not self.intake.releases.goes_on and not self.core.redundant.goes_on:
                break
        self.core.jobs.say_awarded(now)
        self.core.jobs.index.close_step()
        self.host.answer_starts(now)
        self.intake.answer()
        self.host.say_offer(now)
