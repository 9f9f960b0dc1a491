"""What `offgrid smoke` tries of the mesh: this node, its members, the roads to them, a quorum of them, the gateway."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from offgrid.client.address import is_url
from offgrid.client.errors import OffgridError
from offgrid.verdicts import SMOKE_OWN, away, in_reach
from offgrid_tools.cli.smoke_frame import AT_ONCE, FAILED, NAMED_MAX, OK, SKIPPED, Line, Seen, named

if TYPE_CHECKING:
    from offgrid.v1.mesh_pb2 import Peer

PING_S, HTTP_S = 3.0, 3.0
ANSWER_BYTES_MAX = 1 << 20


def node(seen: Seen) -> Iterator[Line]:
    told = seen.status
    if told.removed:
        yield Line("node", told.name, FAILED, "its membership was revoked", "offgrid mesh members")
    else:
        yield Line("node", told.name, OK, f"of mesh {told.mesh}, version {told.version}")


def peers(seen: Seen) -> Iterator[Line]:
    seen.peers = list(seen.client.mesh.peers())
    gone = [peer.member.name for peer in away(seen.peers)]
    total = len(seen.peers) - 1
    if not total:
        yield Line("peers", "", SKIPPED, "this node is the mesh's only member", "offgrid mesh invite")
    elif not seen.others:
        yield Line("peers", "", FAILED, f"none of {total} is alive", "offgrid peers --roads")
    else:
        said = f"; not alive: {named(gone)}" if gone else ""
        yield Line("peers", "", OK, f"{len(seen.others)} of {total} alive{said}")


def roads(seen: Seen) -> Iterator[Line]:
    if not seen.others:
        yield Line("roads", "", SKIPPED, "there is nobody to call")
        return

    def ping(peer: Peer) -> Line:
        name = peer.member.name
        try:
            answer = seen.client.links.ping(peer.member.node_id, timeout_s=seen.left_s(PING_S))
        except OffgridError as error:
            return Line("road", name, FAILED, error.message, f"offgrid peers --roads; offgrid trace {name}")
        return Line("road", name, OK, f"{answer.rtt_ms:.1f} ms by {answer.road.via}")

    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield from pool.map(ping, seen.others)


def quorum(seen: Seen) -> Iterator[Line]:
    """Every member that is alive acks. A quorum stays, as all do: it is one for all runs, of the members of its time,
    and an ack in it is for ever."""
    if not seen.others:
        yield Line("quorum", "", SKIPPED, "no other member is alive to ack one")
        return
    alive = {p.member.node_id: p for p in seen.peers if in_reach(p)}
    rooms = seen.client.quorum
    try:
        rooms.create(SMOKE_OWN, sum(peer.member.weight_milli for peer in alive.values()), [*alive])
    except OffgridError as error:
        if error.reason != "QuorumExists":
            raise
    known = rooms.status(SMOKE_OWN)
    acked = {ack.node_id for ack in known.acks}
    asked = [alive[each.node_id] for each in known.members if each.node_id in alive and each.node_id not in acked]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        refused = [said for said in pool.map(lambda peer: _ack(seen, peer), asked) if said]
    told, show = rooms.status(SMOKE_OWN), f"offgrid quorum status --id {SMOKE_OWN}"
    said = f"{len(told.acks)} of {len(told.members)} members have acked"
    if refused:
        yield Line("quorum", "", FAILED, "; ".join(refused[:NAMED_MAX]), show)
    else:
        yield Line("quorum", "", OK, said if asked else f"{said}, before this")


def _ack(seen: Seen, peer: Peer) -> str:
    """Why there is none; "" of one that came."""
    try:
        seen.client.quorum.ack(SMOKE_OWN, peer.member.node_id)
    except OffgridError as error:
        return f"{peer.member.name}: {error.message}"
    return ""


def gateway(seen: Seen) -> Iterator[Line]:
    """Asked for what only its owner may have, with the token by which this command itself asks, where it has one."""
    import http.client
    from urllib.parse import urlsplit

    url = seen.status.gateway
    if not url:
        yield Line("gateway", "", SKIPPED, "gateway.listen is off, or it could not listen", "offgrid status")
        return
    here = seen.client.address
    token = here.token if is_url(here.target) else os.environ.get("OFFGRID_GATEWAY__TOKEN", "")
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=seen.left_s(HTTP_S))
    try:
        connection.request("GET", "/v1/status", headers={"Authorization": f"Bearer {token}"} if token else {})
        answer = connection.getresponse()
        said = answer.read(ANSWER_BYTES_MAX)
    except (OSError, http.client.HTTPException) as error:
        yield Line("gateway", url, FAILED, f"no answer: {error}", "offgrid status")
        return
    finally:
        connection.close()
    reason, message = _refusal_of(said)
    if answer.status == http.client.OK:
        yield Line("gateway", url, OK, "answers 200")
    elif reason == "TokenMissing":
        yield Line("gateway", url, OK, "answers, and asks for its token")
    else:
        detail = f"answers {answer.status}" + (f": {message}" if message else "")
        yield Line("gateway", url, FAILED, detail, "offgrid doctor")


def _refusal_of(body: bytes) -> tuple[str, str]:
    """Reason and message, each "" where it says none."""
    try:
        error = json.loads(body)["error"]
        return next((str(each["reason"]) for each in error["details"] if "reason" in each), ""), str(error["message"])
    except (ValueError, KeyError, TypeError):
        return "", ""
