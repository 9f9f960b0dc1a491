"""What a page shows of a node at a moment, in parts, and what has changed between two of them.

`status`, `host`: objects or null. `peers`, `links`, `jobs`, `transactions`: lists, whose entries are known by node id,
link, job id and transaction id; open jobs and transactions alone, the newest first. Entries are as the RPCs of these
names answer them (`offgrid.json_form`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec
from google.protobuf.message import Message

from offgrid.json_form import json_of
from offgrid.v1 import jobs_pb2, ledger_pb2, links_pb2, mesh_pb2
from offgrid_node.gateway.calling import call
from offgrid_node.protocol.errors import Fault
from offgrid_node.services.router import Router

ENTRIES_MAX = 200  # of each list; who wants more asks the RPC
OPEN_STATES = (
    jobs_pb2.JOB_STATE_CREATED,
    jobs_pb2.JOB_STATE_QUEUED,
    jobs_pb2.JOB_STATE_AWARDED,
    jobs_pb2.JOB_STATE_RUNNING,
)
# Of status: what changes at each look and can be told by the reader's own clock, or says nothing to people.
_RESTLESS = ("uptime_ms", "commit_ms_p50", "journal_seq", "inbox_depth")

M = TypeVar("M", bound=Message)
Entries = Mapping[str, Message]


class Picture(msgspec.Struct, frozen=True):
    """`seq` is the newest event that the jobs and transactions have in them."""

    seq: int = 0
    status: Message | None = None
    host: Message | None = None
    peers: Entries = msgspec.field(default_factory=dict)
    links: Entries = msgspec.field(default_factory=dict)
    jobs: Entries = msgspec.field(default_factory=dict)
    transactions: Entries = msgspec.field(default_factory=dict)


LISTS: tuple[tuple[str, Callable[[Picture], Entries]], ...] = (
    ("peers", lambda picture: picture.peers),
    ("links", lambda picture: picture.links),
    ("jobs", lambda picture: picture.jobs),
    ("transactions", lambda picture: picture.transactions),
)


def whole(picture: Picture) -> dict[str, Any]:
    """Every part as JSON."""
    return {
        "status": _json(picture.status),
        "host": _json(picture.host),
        **{name: [json_of(entry) for entry in entries(picture).values()] for name, entries in LISTS},
    }


def changes(before: Picture, after: Picture) -> dict[str, Any]:
    """What `after` has otherwise: `status` by field, `host` whole, of lists the entries that are new or changed, and
    below "gone" the ids of those that went. Empty: nothing."""
    found: dict[str, Any] = {}
    if before.status != after.status:
        was, now = _json(before.status) or {}, _json(after.status) or {}
        changed = {name: now[name] for name in now if name not in _RESTLESS and was.get(name) != now[name]}
        found |= {"status": changed} if changed else {}
    if before.host != after.host:
        found["host"] = _json(after.host)
    gone: dict[str, list[str]] = {}
    for name, entries in LISTS:
        was_there, is_there = entries(before), entries(after)
        new = [json_of(entry) for key, entry in is_there.items() if was_there.get(key) != entry]
        left = [key for key in was_there if key not in is_there]
        found |= {name: new} if new else {}
        gone |= {name: left} if left else {}
    return found | ({"gone": gone} if gone else {})


async def look(router: Router, seq: int, last: Picture) -> Picture:
    """The picture now; jobs and transactions are read anew if anything happened since the `last` one. Parts that this
    node cannot answer (it is no host, it is loading) are empty."""
    status = await _ask(router, "MeshService/GetStatus", mesh_pb2.GetStatusRequest(), mesh_pb2.GetStatusResponse())
    peers = await _ask(
        router, "MeshService/ListPeers", mesh_pb2.ListPeersRequest(page_size=ENTRIES_MAX), mesh_pb2.ListPeersResponse()
    )
    links = await _ask(router, "LinkService/ListLinks", links_pb2.ListLinksRequest(), links_pb2.ListLinksResponse())
    host = await _ask(router, "HostService/GetHost", jobs_pb2.GetHostRequest(), jobs_pb2.GetHostResponse())
    jobs, transactions = last.jobs, last.transactions
    if seq != last.seq or not last.seq:
        jobs, transactions = await _open_jobs(router), await _open_transactions(router)
    return Picture(
        seq,
        status,
        host.host if host.HasField("host") else None,
        {peer.member.node_id: peer for peer in peers.peers},
        {link.link: link for link in links.links},
        jobs,
        transactions,
    )


async def _open_jobs(router: Router) -> Entries:
    request = jobs_pb2.ListJobsRequest(page_size=ENTRIES_MAX, states=OPEN_STATES, newest_first=True)
    answer = await _ask(router, "JobService/ListJobs", request, jobs_pb2.ListJobsResponse())
    return {job.job_id: job for job in answer.jobs}


async def _open_transactions(router: Router) -> Entries:
    request = ledger_pb2.ListTransactionsRequest(page_size=ENTRIES_MAX, open=True)
    answer = await _ask(router, "LedgerService/ListTransactions", request, ledger_pb2.ListTransactionsResponse())
    return {tx.tx_id: tx for tx in answer.transactions}


async def _ask(router: Router, method: str, request: Message, empty: M) -> M:
    try:
        return await call(router, f"offgrid.v1.{method}", request, type(empty))
    except Fault:
        return empty


def _json(message: Message | None) -> dict[str, Any] | None:
    return None if message is None else json_of(message)
