"""`offgrid job top`: what is under way, where, and how fast it ends; a live table, or a document per tick."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from offgrid_tools.cli.jobs import named, state_of
from offgrid_tools.cli.keys import until_quit
from offgrid_tools.cli.numbers import FiniteRange
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from offgrid.client import Client
    from offgrid.v1.jobs_pb2 import BookEntry, Job
    from offgrid.v1.mesh_pb2 import GetStatusResponse, Peer

ENDS = {"JOB_COMPLETED": "completed", "JOB_FAILED": "failed", "JOB_CANCELLED": "cancelled"}
OPEN = "queued", "awarded", "running"


@click.command()
@click.option(
    "--interval",
    type=FiniteRange(0.1, 3_600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks.",
)
@click.option("--count", type=click.IntRange(1), help="So many looks, then end. [default: until q or Ctrl-C]")
@click.option(
    "--limit", metavar="COUNT", type=click.IntRange(0), default=20, show_default=True, help="Jobs that are shown."
)
@common  # fmt: skip
def top(interval: float, count: int | None, limit: int) -> None:
    """Watch running jobs, hosts and rates, live; q ends it. With --json a document per look."""
    client = settings().connect()
    with until_quit() as pause:
        _show(_ticks(client, interval, count, limit, pause), interval)


def _show(ticks: Iterator[Tick], interval: float) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        for tick in ticks:
            emit(tick.document())
    elif sys.stdout.isatty():
        _live(ticks, interval)
    else:
        for tick in ticks:
            _plain(tick)


class Tick(NamedTuple):
    """One look."""

    status: GetStatusResponse
    rates: dict[str, float]
    jobs: Sequence[Job]
    peers: Sequence[Peer]
    entries: dict[str, BookEntry]

    def document(self) -> dict[str, Any]:
        from offgrid.json_form import json_of
        from offgrid.v1.common_pb2 import Liveness

        hosts = [
            {
                "node_id": node_id,
                "name": peer.member.name,
                "liveness": Liveness.Name(peer.liveness),
                "jobs": held,
                "slots_free": free,
            }
            for node_id, peer, held, free in self.hosts()
        ]
        return {
            "open": self.status.jobs_open,
            "slots_busy": self.status.slots_busy,
            "slots_total": self.status.slots_total,
            "ended_per_s": self.rates,
            "jobs": [json_of(job) for job in self.jobs],
            "hosts": hosts,
        }

    def hosts(self) -> Iterator[tuple[str, Peer, int, int | None]]:
        """Node id, peer, the jobs shown here that it has, and its free slots where this node is a broker."""
        from offgrid.v1.common_pb2 import Role

        here = Counter(job.host for job in self.jobs)
        for peer in self.peers:
            if Role.ROLE_HOST in peer.roles_in_force:
                entry = self.entries.get(peer.member.node_id)
                yield peer.member.node_id, peer, here[peer.member.node_id], entry.slots_free if entry else None

    def headline(self) -> str:
        status = self.status
        rates = ", ".join(f"{self.rates[state]:.1f} {state}/s" for state in ENDS.values())
        slots = f"{status.slots_busy} of {status.slots_total} slots here busy"
        return f"{status.name} of {status.mesh}: {status.jobs_open} jobs open, {slots}; {rates}"

    def job_rows(self) -> Iterator[tuple[str, ...]]:
        from offgrid_tools.cli.output import cut, duration

        names, now_us = {peer.member.node_id: peer.member.name for peer in self.peers}, time.time() * 1e6
        for job in self.jobs:
            began_us = job.attempts[-1].started_us if job.attempts else job.created_us
            age = duration(max(0.0, now_us - began_us) / 1000)
            host, attempt = named(job.host, names), str(job.attempt or "")
            yield job.job_id, state_of(job), attempt, host, job.needs, age, cut(job.input_name)

    def host_rows(self) -> Iterator[tuple[str, ...]]:
        from offgrid.v1.common_pb2 import Liveness
        from offgrid_tools.cli.output import word

        for _, peer, held, free in self.hosts():
            yield peer.member.name, word(Liveness, peer.liveness), str(held), "" if free is None else str(free)


JOB_COLUMNS = "job", "state", "attempt", "host", "needs", "for", "input"
HOST_COLUMNS = "host", "state", "jobs", "free"
NO_JOBS, NO_HOSTS = "no jobs are under way", "no hosts are known"


class Rates:
    """Counts ends as the journal tells of them, in a thread that goes with the client."""

    def __init__(self, client: Client) -> None:
        self._client, self._after = client, client.mesh.status().journal_seq
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._since = time.monotonic()
        threading.Thread(target=self._listen, name="offgrid-top", daemon=True).start()

    def take(self) -> dict[str, float]:
        """Per second, since the last call."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            passed, self._since = time.monotonic() - self._since, time.monotonic()
        return {state: round(counts[state] / passed, 3) if passed else 0.0 for state in ENDS.values()}

    def _listen(self) -> None:
        from offgrid.client import OffgridError

        try:
            for event in self._client.events.watch(after_seq=self._after, types=ENDS):
                with self._lock:
                    self._counts[ENDS[event.type]] += 1
        except (OffgridError, ValueError):
            return  # the client was closed, or the node is gone: then the next look says so


def _ticks(
    client: Client, interval: float, count: int | None, limit: int, pause: Callable[[float], bool]
) -> Iterator[Tick]:
    """Until there were `count`, or a pause is cut short."""
    rates = Rates(client)
    looks = 0
    while True:
        if looks and pause(interval):
            return
        looks += 1
        jobs = list(client.jobs.list(states=OPEN, limit=limit)) if limit else []
        entries = {entry.profile.host: entry for entry in client.market.offers().entries}
        ended = rates.take() if looks > 1 else dict.fromkeys(ENDS.values(), 0.0)  # too short a time to tell
        yield Tick(client.mesh.status(), ended, jobs, list(client.mesh.peers()), entries)
        if looks == count:
            return


def _plain(tick: Tick) -> None:
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import table

    click.echo(clean(tick.headline()))
    table(JOB_COLUMNS, tick.job_rows(), empty=NO_JOBS)
    table(HOST_COLUMNS, tick.host_rows(), empty=NO_HOSTS)
    click.echo()


def _live(ticks: Iterator[Tick], interval: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from offgrid.command_line.terminal import clean, terminal_columns
    from offgrid_tools.cli.fitting import wrap
    from offgrid_tools.cli.output import drawn

    def shown(tick: Tick) -> Text:
        width = terminal_columns()
        jobs = drawn(JOB_COLUMNS, tick.job_rows(), width, empty=NO_JOBS)
        hosts = drawn(HOST_COLUMNS, tick.host_rows(), width, empty=NO_HOSTS)
        return Text.from_ansi("\n".join([*wrap(clean(tick.headline()), width), "", *jobs, "", *hosts]))

    with Live(console=Console(highlight=False), auto_refresh=False) as live:
        for tick in ticks:
            live.update(shown(tick), refresh=True)
