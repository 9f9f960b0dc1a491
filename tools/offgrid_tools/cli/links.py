"""`offgrid ping`, `trace` and `link`, and the roads that `peers --roads` shows."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.client.errors import OffgridError
    from offgrid.v1.links_pb2 import Link, Road

COUNT_MAX = 10_000
TIMEOUT = click.FloatRange(0.001, 600)
COLUMNS = ("name", "road", "address", "state", "rtt", "loss", "rate", "heard", "over")


def show_roads(node: str) -> None:
    """Of one member, or of all."""
    answer = settings().connect().links.roads(node)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid_tools.cli.output import table

    rows = []
    for peer in answer.peers:
        roads = [_row(road) for road in peer.roads] or [("none", *[""] * 7)]
        rows += [(peer.name if not index else "", *row) for index, row in enumerate(roads)]
    table(COLUMNS, rows, empty="no other members are known")


def _row(road: Road) -> tuple[str, ...]:
    from offgrid.v1.links_pb2 import RoadState
    from offgrid_tools.cli.output import duration, size, word

    return (
        road.via,
        road.address,
        word(RoadState, road.state),
        duration(road.rtt_ms) if road.HasField("rtt_ms") else "",
        f"{road.loss_milli / 10:g} %" if road.HasField("loss_milli") else "",
        f"{size(road.bytes_per_s)}/s" if road.bytes_per_s else "",
        f"{duration(road.heard_ms)} ago" if road.HasField("heard_ms") else "",
        " ".join(road.hops),
    )


@click.command()
@click.argument("node", metavar="NODE")
@click.option(
    "--via", metavar="ROAD", default="", help="Over this road, or whose name begins so: grpc, lora, udp:*:7700."
)
@click.option("-c", "--count", type=click.IntRange(1, COUNT_MAX), default=4, show_default=True, help="How often.")
@click.option("--interval", type=click.FloatRange(0, 3600), default=1.0, show_default=True, help="Seconds between.")
@click.option("--timeout", type=TIMEOUT, default=10.0, show_default=True, help="Seconds to wait for each answer.")
@common
def ping(node: str, via: str, count: int, interval: float, timeout: float) -> int:
    """Measure how long NODE takes to answer, over the road that calls take now or over another one.

    Ends with 1 when no answer came at all.
    """
    from offgrid.client.errors import OffgridError

    links, times, last = settings().connect().links, list[float](), None
    for number in range(count):
        if number:
            time.sleep(interval)
        try:
            answer = links.ping(node, via=via, timeout_s=timeout)
        except OffgridError as error:
            if error.code not in ("UNAVAILABLE", "DEADLINE_EXCEEDED", "UNKNOWN", "ABORTED"):
                raise
            last = error
            _say_lost(error)
            continue
        times.append(answer.rtt_ms)
        if settings().json:
            from offgrid_tools.cli.emitting import emit

            emit(answer)
        else:
            over = f", over {' '.join(answer.road.hops)}" if answer.road.hops else ""
            click.echo(f"{answer.name} by {answer.road.via} {answer.road.address}: {answer.rtt_ms:.1f} ms{over}")
    if not settings().json:
        _sum_up(count, times)
    return 0 if times or last is None else 1


def _say_lost(error: OffgridError) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"lost": error.message})
    else:
        from offgrid.command_line.terminal import clean

        click.echo(f"no answer: {clean(error.message)}")


def _sum_up(count: int, times: list[float]) -> None:
    import statistics

    lost = count - len(times)
    click.echo(f"{len(times)} of {count} answered, {100 * lost / count:.0f} % lost")
    if times:
        middle = statistics.median(times)
        click.echo(
            f"round trip: {min(times):.1f} ms at least, {middle:.1f} ms in the middle, {max(times):.1f} ms at most"
        )


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--timeout", type=TIMEOUT, default=10.0, show_default=True, help="Seconds to wait for each answer.")
@common
def trace(node: str, timeout: float) -> int:
    """Show which way a call to NODE takes: the members that pass it on, and how long each takes to answer.

    Ends with 1 when NODE does not answer.
    """
    from offgrid.client.errors import OffgridError

    links = settings().connect().links
    [peer] = links.roads(node).peers
    road = peer.roads[0] if peer.roads else None
    steps, answered = list[dict[str, object]](), False
    for hop in [*(road.hops if road is not None else ()), peer.node_id]:
        try:
            answer = links.ping(hop, via="" if road is None or hop != peer.node_id else road.via, timeout_s=timeout)
            way: tuple[object, ...] = (answer.name, answer.road.via, answer.road.address, answer.rtt_ms, "")
            answered = hop == peer.node_id
        except OffgridError as error:
            way = (peer.name if hop == peer.node_id else hop, "", "", None, error.message)
        steps.append(dict(zip(("node", "via", "address", "rtt_ms", "trouble"), way, strict=True)))
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"steps": steps})
    else:
        from offgrid_tools.cli.output import table

        rows = [
            (number, step["node"], step["via"], step["address"], step["trouble"] or f"{step['rtt_ms']:.1f} ms")
            for number, step in enumerate(steps, 1)
        ]
        table(("", "node", "road", "address", "answer"), rows, empty="")
    return 0 if answered else 1


@click.command(name="list")
@common
def list_links() -> None:
    """List this node's packet links, and what each tells of itself."""
    answer = settings().connect().links.list()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    if not answer.links:
        click.echo(NO_LINKS)
    from offgrid_tools.cli.output import facts

    for index, link in enumerate(answer.links):
        if index:
            click.echo()
        facts([("link", link.link), ("state", "up" if link.up else "down"), *_figures(link)])


NO_LINKS = "this node has no packet links; `[links]` in offgrid.toml opens them"


def _figures(link: Link) -> list[tuple[str, object]]:
    shared = "one at a time" if link.shared else ""
    rate = f"{link.bitrate_bps} bit/s" if link.bitrate_bps else ""
    return [("carries", " ".join(filter(None, (rate, shared)))), *((each.name, each.value) for each in link.figures)]


@click.command()
@common
def airtime() -> None:
    """Show who has used how much of each link's time in the last hour, and what the rules of its band leave."""
    answer = settings().connect().links.list()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(answer)
        return
    from offgrid.v1.links_pb2 import Urgency
    from offgrid_tools.cli.output import duration, table, word

    counted = [link for link in answer.links if link.used or link.left]
    if not counted:
        click.echo(NO_LINKS if not answer.links else "none of this node's links counts airtime")
    for link in counted:
        click.echo(link.link)
        if link.left:
            left = ", ".join(f"{word(Urgency, each.urgency)} {duration(each.left_ms)}" for each in link.left)
            click.echo(f"may still send: {left}")
        rows = [(each.name or each.who, word(Urgency, each.urgency), duration(each.air_ms)) for each in link.used]
        table(("for", "urgency", "used"), rows, empty="nothing was sent in the last hour")
