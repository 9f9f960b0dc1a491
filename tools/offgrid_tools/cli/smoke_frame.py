"""What the checks of `offgrid smoke` have in common: what each is told and gives.

A check that cannot be made here says why (SKIPPED); one that went wrong says what to type next (FAILED). Whatever a
check raises is a line as well, so that the others are still made.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from offgrid.client.errors import OffgridError
from offgrid.v1.common_pb2 import ROLE_HOST
from offgrid.verdicts import in_reach, playing

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.v1.mesh_pb2 import GetStatusResponse, Peer

OK, FAILED, SKIPPED = "ok", "failed", "skipped"
WITHIN_S = 15.0  # all of it
AT_ONCE = 8
NAMED_MAX = 5


class Line(NamedTuple):
    """One line of the table: what was tried, where, what came of it, and what to type next."""

    check: str
    about: str
    outcome: str
    detail: str
    next: str = ""


class Seen:
    """What earlier checks have found out for the later ones."""

    def __init__(self, client: Client, with_transfer: bool, give_up_at: float, status: GetStatusResponse) -> None:
        """`give_up_at`: by time.monotonic()."""
        self.client, self.with_transfer, self.give_up_at, self.status = client, with_transfer, give_up_at, status
        self.peers: list[Peer] = []
        self.job_id = ""

    @property
    def others(self) -> list[Peer]:
        """The members that are alive, but for this node."""
        return [peer for peer in self.peers if not peer.self and in_reach(peer)]

    @property
    def hosts(self) -> list[Peer]:
        """The members alive that do jobs, this node perhaps among them."""
        return [peer for peer in playing(ROLE_HOST, self.peers) if in_reach(peer)]

    def left_s(self, most: float) -> float:
        return max(0.1, min(most, self.give_up_at - time.monotonic()))


Check = Callable[[Seen], Iterable[Line]]


def begin(client: Client, *, with_transfer: bool) -> Seen:
    """Asks the node who it is; raises OffgridError when none answers: then there is nothing to try."""
    return Seen(client, with_transfer, time.monotonic() + WITHIN_S, client.mesh.status())


def carry_out(seen: Seen, name: str, check: Check) -> list[tuple[Line, float]]:
    """The lines of one check and how long each took, in ms."""
    made, before = list[tuple[Line, float]](), time.monotonic()
    try:
        for line in check(seen):
            made.append((line, 1000 * (time.monotonic() - before)))
            before = time.monotonic()
    except OffgridError as error:
        made.append((Line(name, "", FAILED, error.message, "offgrid doctor"), 1000 * (time.monotonic() - before)))
    return made


def named(names: list[str]) -> str:
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return ", ".join(names[:NAMED_MAX]) + more
