"""gateway: what HTTP costs a node, beside a bare Starlette route behind uvicorn that answers with the same document.

One client, one connection, one request after the other, so it is the latency that a script or a page sees.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from urllib.parse import urlsplit

from websockets.sync.client import ClientConnection, connect

from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_tools.bench.figures import Figure
from offgrid_tools.bench.groups import Plan
from offgrid_tools.bench.harness import quantile, side_by_side
from offgrid_tools.bench.processes import Meter, resident_mib
from offgrid_tools.fixtures.processes import Fixture

REQUESTS, REQUESTS_QUICK = 1_000, 200
PAIRS, PAIRS_QUICK = 7, 3
HEARD, HEARD_QUICK = 300, 50
SETTLE_S = 3.0  # after its start a node imports what it may need
GIVE_UP_S = 30.0
MS, US = 1_000.0, 1_000_000.0

Ask = Callable[[], bytes]


def measure(plan: Plan) -> list[Figure]:
    """All figures of the group."""
    nodes = {"with": ["core"], "without": ["core"]}
    with LocalMesh(plan.folder / "mesh", "bench", nodes, gateway__listen="127.0.0.1:0") as mesh:
        without = mesh["without"]
        without.settings = {**without.settings, "gateway.listen": "off"}
        mesh.start()
        time.sleep(SETTLE_S)
        return [*_memory(mesh["with"], without), *_answers(plan, mesh["with"]), *_feed(plan, mesh["with"])]


def _memory(node: LocalNode, without: LocalNode) -> Iterator[Figure]:
    ours, theirs = resident_mib(_pid(node)), resident_mib(_pid(without))
    yield Figure("rss_mb_of_gateway", ours - theirs, note=f"{ours:.0f} with it, {theirs:.0f} without, both idle")


def _answers(plan: Plan, node: LocalNode) -> Iterator[Figure]:
    count, pairs = plan.rounds(REQUESTS, REQUESTS_QUICK), plan.rounds(PAIRS, PAIRS_QUICK)
    plan.say(f"gateway: {pairs} times {count} answers of GET /v1/status and of a bare route")
    with closing(_connection(_url(node))) as ours:
        status = _asked(ours, "GET", "/v1/status")
        document = json.dumps(json.loads(status()))
        with Fixture("bare_http", document) as bare, closing(_connection(bare.url)) as theirs:
            times: dict[str, list[float]] = {"ours": [], "theirs": []}
            route = _asked(theirs, "GET", "/")
            meter = Meter({"ours": _pid(node), "theirs": bare.pid})
            found = side_by_side(lambda: _sample(times["ours"], status, count),
                                 lambda: _sample(times["theirs"], route, count), pairs)  # fmt: skip
            spent, asked = meter.read(), count * (pairs + 1)
        yield Figure("status_p50_ms", found.our_median * MS, "bare route", found.their_median * MS, found.spread)
        yield Figure("status_p99_ms", quantile(times["ours"], 0.99) * MS, "bare route",
                     quantile(times["theirs"], 0.99) * MS)  # fmt: skip
        yield Figure("status_p50_vs_bare", found.ratio, "bare route, ms", found.their_median * MS, found.spread)
        yield Figure("status_cpu_us", spent["ours"] / asked * US, "bare route", spent["theirs"] / asked * US)
        yield from _jobs(ours, count)


def _jobs(connection: http.client.HTTPConnection, count: int) -> Iterator[Figure]:
    """Each durable before it is answered."""
    mission = json.loads(_asked(connection, "POST", "/v1/missions", {"title": "bench"})())["mission"]["mission_id"]
    task_of = {"mission_id": mission, "name": "bench", "kind": "compute"}
    task = json.loads(_asked(connection, "POST", "/v1/tasks", task_of)())["task"]["task_id"]
    job = {"task_id": task, "job": {"payload": {"builtin": {"name": "echo"}, "input": "aGVsbG8="}}}
    times: list[float] = []
    _sample(times, _asked(connection, "POST", "/v1/jobs", job), count)
    yield Figure("create_job_p50_ms", quantile(times, 0.5) * MS, note="fsynced")
    yield Figure("create_job_p99_ms", quantile(times, 0.99) * MS, note="fsynced")


def _feed(plan: Plan, node: LocalNode) -> Iterator[Figure]:
    count = plan.rounds(HEARD, HEARD_QUICK)
    plan.say(f"gateway: {count} events, from the call to who reads the feed")
    url = _url(node)
    address = f"ws://{urlsplit(url).netloc}/v1/feed?etypes=10"
    with closing(_connection(url)) as ours, connect(address, max_size=2**24, open_timeout=GIVE_UP_S) as feed:
        create = _asked(ours, "POST", "/v1/missions", {"title": "heard"})
        times = [_heard(feed, create) for _ in range(count)]
    yield Figure("feed_p50_ms", quantile(times, 0.5) * MS, note="the call, its fsync and the event at the reader")
    yield Figure("feed_p99_ms", quantile(times, 0.99) * MS)


def _heard(feed: ClientConnection, create: Ask) -> float:
    began = time.perf_counter()
    subject = json.loads(create())["mission"]["mission_id"]
    while json.loads(feed.recv(GIVE_UP_S)).get("subject") != subject:
        pass
    return time.perf_counter() - began


def _sample(times: list[float], ask: Ask, count: int) -> float:
    """The middle one of so many, which go to `times`."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    times += taken
    return quantile(taken, 0.5)


def _asked(connection: http.client.HTTPConnection, method: str, path: str, message: object = None) -> Ask:
    """That request, whose answer has to be 200."""
    body = None if message is None else json.dumps(message)

    def ask() -> bytes:
        connection.request(method, path, body)
        with connection.getresponse() as answer:
            said = answer.read()
            assert answer.status == http.HTTPStatus.OK, said
        return said

    return ask


def _connection(url: str) -> http.client.HTTPConnection:
    place = urlsplit(url)
    return http.client.HTTPConnection(place.hostname or "", place.port, timeout=GIVE_UP_S)


def _url(node: LocalNode) -> str:
    with node.client() as client:
        return client.mesh.status().gateway


def _pid(node: LocalNode) -> int:
    assert node.process is not None
    return node.process.pid
