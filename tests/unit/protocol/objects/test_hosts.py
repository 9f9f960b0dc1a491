"""When a host counts as lost: dead for long, or removed, which nobody waits for."""

from __future__ import annotations

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.events import HOST, PeerUp
from offgrid_node.protocol.objects.hosts import Hosts

UP, REPAIR_MS = PeerUp("h", "", frozenset({HOST}), 1_000, ""), 600_000


def test_a_dead_one_is_lost_after_a_while_a_removed_one_at_once() -> None:
    for removed, lost_ms in ((False, REPAIR_MS), (True, 0)):
        hosts = Hosts("owner", REPAIR_MS)
        hosts.on_up(UP, Now(0, 0))
        assert hosts.on_down("h", Now(5, 0), removed=removed)
        assert hosts.deadline_ms() == 5 + lost_ms
        assert hosts.is_lost("h", 5 + lost_ms)
        assert not hosts.is_lost("h", 4 + lost_ms)
        assert hosts.take_lost(Now(5 + lost_ms, 0)) == ["h"]


def test_one_that_is_removed_while_it_is_dead_or_before_it_was_heard_of_is_lost_then() -> None:
    hosts = Hosts("owner", REPAIR_MS)
    hosts.load(["h"], Now(0, 0))
    assert hosts.on_down("h", Now(7, 0), removed=True)
    assert hosts.take_lost(Now(7, 0)) == ["h"]


def test_one_that_is_admitted_again_is_not() -> None:
    hosts = Hosts("owner", REPAIR_MS)
    hosts.on_down("h", Now(0, 0), removed=True)
    hosts.on_up(UP, Now(1, 0))
    assert not hosts.is_lost("h", REPAIR_MS)
