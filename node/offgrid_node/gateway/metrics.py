"""`GET /metrics`: a node's meters, and what it holds at this moment, as Prometheus text 0.0.4 or OpenMetrics 1.0.

Only this file knows the library; each page has a registry of its own, so that two nodes may live in one process. The
process's own figures (process_*) come from /proc and are missing where there is none.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, InfoMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

from offgrid.v1 import mesh_pb2
from offgrid_node.gateway.kept_metrics import of_kept
from offgrid_node.meters import Counter, Histogram, Meters
from offgrid_node.meters.http import HttpMeters
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.mail.machine import MailMachine
from offgrid_node.protocol.mesh.swim import ALIVE
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.runtime import Runtime
from offgrid_node.services.health.facts import HealthFacts
from offgrid_node.services.mesh import NodeFacts, mesh_of, notices_of

# Named in Accept, and not with a weight of nothing.
_OPENMETRICS = re.compile(r"application/openmetrics-text(?!\s*;[^,]*\bq=0(\.0*)?\s*(,|$|;))", re.IGNORECASE)

_ALERT_NUMBERS = {mesh_pb2.ALERT_STATE_OK: 0, mesh_pb2.ALERT_STATE_WARN: 1, mesh_pb2.ALERT_STATE_CRITICAL: 2}


class MetricsPage:
    """The text, made anew for each reader."""

    def __init__(self, meters: Meters, runtime: Runtime, facts: Callable[[], NodeFacts]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_NodeCollector(meters, runtime, facts))
        ProcessCollector(registry=self._registry)

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and body, in the form that an Accept header asks for."""
        if _OPENMETRICS.search(accept):
            text = openmetrics.generate_latest(self._registry)  # type: ignore[no-untyped-call]
            return openmetrics.CONTENT_TYPE_LATEST, text
        return CONTENT_TYPE_PLAIN_0_0_4, generate_latest(self._registry)


class _NodeCollector(Collector):
    """What grows comes from the meters, what stands from the node itself."""

    def __init__(self, meters: Meters, runtime: Runtime, facts: Callable[[], NodeFacts]) -> None:
        self._meters, self._runtime, self._facts = meters, runtime, facts

    def collect(self) -> Iterator[Metric]:
        for instrument in self._meters:
            yield _counter(instrument) if isinstance(instrument, Counter) else _histogram(instrument)
        yield from self._of_runtime()
        yield from _of_http(self._meters.http)
        for part in (self._of_machines, self._of_outbox, self._of_mail):
            with suppress(
                Fault
            ):  # the node is loading what it knows: there are no machines to ask, the rest is still true
                yield from part()

    def _of_runtime(self) -> Iterator[Metric]:
        runtime, store = self._runtime, self._runtime.store
        waiting = self._meters.writers.waiting
        yield GaugeMetricFamily("offgrid_writer_waiting_events", "Events that wait in programs, as each said.", waiting)
        yield GaugeMetricFamily("offgrid_inbox_inputs", "Inputs that wait for the next batch.", runtime.inbox_depth)
        yield CounterMetricFamily(
            "offgrid_journal_events_total", "Events of the journal, over all starts.", store.journal_seq
        )
        yield CounterMetricFamily(
            "offgrid_runtime_failures_total", "Batches that were lost and loads that failed.", runtime.failures
        )
        yield GaugeMetricFamily("offgrid_store_bytes", "What the node's store takes on disk.", store.size_bytes())
        yield GaugeMetricFamily("offgrid_store_limit_bytes", "What it may take at most.", store.limit_bytes())

    def _of_machines(self) -> Iterator[Metric]:
        facts, mesh = self._facts(), mesh_of(self._runtime)
        members = mesh.directory.live()
        alive = sum(mesh.liveness(node_id) == ALIVE for node_id in members)
        build = {"version": facts.version, "python": platform.python_version()}
        yield InfoMetricFamily("offgrid_build", "What this node runs.", build)
        yield GaugeMetricFamily("offgrid_uptime_seconds", "Since the node was started.", facts.uptime_ms / 1000)
        peers = GaugeMetricFamily("offgrid_peers", "Members of the mesh, this node too, by liveness.", labels=["state"])
        peers.add_metric(["alive"], alive)
        peers.add_metric(["not_alive"], len(members) - alive)
        yield peers
        yield GaugeMetricFamily("offgrid_open_jobs", "Jobs of this core that have not ended.", facts.jobs_open)
        slots = GaugeMetricFamily("offgrid_slots", "Jobs that this host can carry out at a time.", labels=["state"])
        slots.add_metric(["busy"], facts.slots_busy)
        slots.add_metric(["free"], max(0, facts.slots_total - facts.slots_busy))
        yield slots
        repairs = CounterMetricFamily(
            "offgrid_repair_bytes_total", "Bytes of shards made anew: pulled here, given for others'.", labels=["way"]
        )
        repairs.add_metric(["pulled"], facts.repair_pulled_bytes)
        repairs.add_metric(["given"], facts.repair_given_bytes)
        yield repairs
        yield GaugeMetricFamily(
            "offgrid_notices", "What `offgrid status` says that an owner should know.", len(notices_of(facts, mesh))
        )
        yield from _of_checks(facts)
        yield from _of_health(facts.health)
        if facts.objects is not None:
            yield _of_risks(facts.objects)
        yield from of_kept(facts.kept(), self._runtime.store.journal_seq, self._runtime.store.journal_floor)

    def _of_outbox(self) -> Iterator[Metric]:
        machine = self._runtime.machine("objects", ObjectsMachine)
        age_s = machine.outbox_age_ms(self._runtime.clock.now()) / 1000
        yield GaugeMetricFamily("offgrid_outbox_entries", "Objects whose quorum has not acked.", machine.outbox_depth)
        yield GaugeMetricFamily("offgrid_outbox_age_seconds", "How long the oldest of them has waited.", age_s)

    def _of_mail(self) -> Iterator[Metric]:
        machine = self._runtime.machine("mail", MailMachine)
        parcels, size_bytes, _ = machine.held
        yield GaugeMetricFamily("offgrid_mailbox_parcels", "Parcels that are held for others.", parcels)
        yield GaugeMetricFamily("offgrid_mailbox_bytes", "What they take of the mailbox's room.", size_bytes)
        yield GaugeMetricFamily("offgrid_unanswered_parcels", "Own mail that has no answer yet.", machine.unanswered)
        yield GaugeMetricFamily("offgrid_unread_messages", "Messages that nobody has read.", machine.unread)


def _of_http(http: HttpMeters) -> Iterator[Metric]:
    held = GaugeMetricFamily(
        "offgrid_http_open_requests", "Requests, streams and WebSockets that are open.", labels=["kind"]
    )
    for kind, count in http.open_now():
        held.add_metric([kind], count)
    yield held
    yield GaugeMetricFamily(
        "offgrid_old_path_last_timestamp_seconds",
        "When a path of the prototype's was last asked for; 0: not since the node was started.",
        http.old_path_last_s,
    )


def _of_health(health: HealthFacts) -> Iterator[Metric]:
    labels = ["name", "about"]
    state = GaugeMetricFamily(
        "offgrid_alert_state", "0: ok, 1: warn, 2: critical; about a session, or this node.", labels=labels
    )
    value = GaugeMetricFamily(
        "offgrid_alert_value", "The figure that is judged, in the unit of its name.", labels=labels
    )
    threshold = GaugeMetricFamily(
        "offgrid_alert_threshold", "The one that it is beyond; while it is ok the lowest.", labels=labels
    )
    active = [0] * len(_ALERT_NUMBERS)
    for alert in health.alerts:
        where = [alert.name, alert.about]
        number = _ALERT_NUMBERS.get(alert.state, 0)
        state.add_metric(where, number)
        active[number] += 1
        value.add_metric(where, alert.value)
        threshold.add_metric(where, alert.threshold)
    told = CounterMetricFamily(
        "offgrid_alerts_told_total", "Changes of alerts that the owner's hooks were told.", labels=["way", "outcome"]
    )
    for way, outcome, count in health.told:
        told.add_metric([way, outcome], count)
    alerts = GaugeMetricFamily("offgrid_active_alerts", "Alerts in force, by how bad they are.", labels=["state"])
    alerts.add_metric(["warn"], active[1])
    alerts.add_metric(["critical"], active[2])
    yield from (state, value, threshold, alerts, told)
    yield GaugeMetricFamily(
        "offgrid_store_used_bytes", "Of offgrid_store_bytes, without free pages.", health.store_used_bytes
    )
    if health.memory_bytes:
        yield GaugeMetricFamily("offgrid_memory_bytes", "Memory of the node's process.", health.memory_bytes)


def _of_risks(told: mesh_pb2.ObjectRisks) -> Metric:
    family = GaugeMetricFamily(
        "offgrid_endangered_objects",
        "This node's durable objects that hosts in reach cannot give back (gone), that one more host lost may end "
        "(at_risk), of which less is kept than is wanted (degraded), and that were not judged (unjudged).",
        labels=["risk"],
    )
    counts = {"gone": told.gone, "at_risk": told.at_risk, "degraded": told.degraded, "unjudged": told.unjudged}
    for risk, count in counts.items():
        family.add_metric([risk], count)
    return family


def _of_checks(facts: NodeFacts) -> Iterator[Metric]:
    read = CounterMetricFamily(
        "offgrid_check_read_bytes_total",
        "Bytes read to check shards: others' here (scrub), and this node's own at hosts (audit).",
        labels=["by"],
    )
    wrong = CounterMetricFamily("offgrid_wrong_shards_total", "Shards found damaged, wrong or gone.", labels=["by"])
    for by, read_bytes, found in (
        ("scrub", facts.scrub_read_bytes, facts.scrub_damaged),
        ("audit", facts.audit_read_bytes, facts.audit_wrong),
    ):
        read.add_metric([by], read_bytes)
        wrong.add_metric([by], found)
    yield read
    yield wrong
    yield GaugeMetricFamily("offgrid_verified_objects", "This node's objects that are verified.", facts.audit_verified)
    if facts.audit_oldest_us:
        oldest_s = facts.audit_oldest_us / 1_000_000
        yield GaugeMetricFamily(
            "offgrid_verified_oldest_timestamp_seconds", "When that of them was which was so the longest ago.", oldest_s
        )


def _counter(instrument: Counter) -> Metric:
    family = CounterMetricFamily(instrument.name, instrument.about, labels=instrument.labels)
    for labels, count in instrument.samples():
        family.add_metric(labels, count)
    return family


def _histogram(instrument: Histogram) -> Metric:
    family = HistogramMetricFamily(instrument.name, instrument.about, labels=instrument.labels)
    bounds = [*map(str, map(float, instrument.bounds)), "+Inf"]
    for labels, spread in instrument.samples():
        family.add_metric(labels, list(zip(bounds, accumulate(spread.counts), strict=True)), spread.total)
    return family
