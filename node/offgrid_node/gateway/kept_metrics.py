"""The metrics of what a node keeps, and of the programs that record in it."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric

from offgrid_node.services.kept_facts import Backups, KeptFacts


def of_kept(kept: KeptFacts, journal_seq: int, journal_floor: int) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "offgrid_journal_kept_events", "Events of the journal that are there still.", journal_seq - journal_floor
    )
    yield from _of_retention(kept)
    behind = max(0, journal_seq - kept.summarised_seq)
    yield GaugeMetricFamily("offgrid_summaries_behind_events", "Events of the journal in no summary yet.", behind)
    yield GaugeMetricFamily("offgrid_summaries_failing", "1: what happened is not summarised.", kept.summaries_fail)
    yield from _of_backups(kept.backups)
    if kept.mirror_seq is not None:
        behind = max(0, journal_seq - kept.mirror_seq)
        yield GaugeMetricFamily("offgrid_sql_mirror_behind_events", "Events not in the copy for SQL yet.", behind)
        yield GaugeMetricFamily("offgrid_sql_mirror_failing", "1: it is not written.", kept.mirror_fails)


def _of_retention(kept: KeptFacts) -> Iterator[Metric]:
    budget = GaugeMetricFamily("offgrid_retention_budget_bytes", "What a share may take.", labels=["share"])
    used = GaugeMetricFamily("offgrid_retention_used_bytes", "What it takes, in pages of the store.", labels=["share"])
    for name, budget_bytes, used_bytes in kept.shares:
        budget.add_metric([name], budget_bytes)
        used.add_metric([name], used_bytes)
    dropped = CounterMetricFamily(
        "offgrid_retention_dropped_events_total", "Events that went for want of room or for their age.", labels=["of"]
    )
    dropped.add_metric(["journal"], kept.dropped_events)
    dropped.add_metric(["sessions"], kept.dropped_session_events)
    yield from (budget, used, dropped)
    yield CounterMetricFamily("offgrid_retention_dropped_bytes_total", "What they took.", kept.dropped_bytes)
    yield GaugeMetricFamily("offgrid_retention_held", "1: more is kept than there should be.", kept.held)


def _of_backups(backups: Backups) -> Iterator[Metric]:
    made = CounterMetricFamily("offgrid_backups_total", "Backups, by what came of them.", labels=["outcome"])
    made.add_metric(["done"], backups.done)
    made.add_metric(["failed"], backups.failed)
    yield made
    if backups.newest_us:
        at_s = backups.newest_us / 1e6
        yield GaugeMetricFamily("offgrid_backup_newest_timestamp_seconds", "When the newest was made.", at_s)
        yield GaugeMetricFamily("offgrid_backup_newest_bytes", "How large it is.", backups.newest_bytes)
