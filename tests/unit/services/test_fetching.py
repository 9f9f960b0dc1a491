"""An object comes back to its owner from hosts, to the bit, or not at all."""

from __future__ import annotations

import pytest
from bulk_world import STRIPE, World

from offgrid_node.protocol.errors import Unavailable
from offgrid_node.protocol.objects.errands import Fetch, Fetched

DATA = bytes(range(256)) * 5


def fetched(world: World, object_id: str, monkeypatch: pytest.MonkeyPatch) -> list[Fetched]:
    """How it ended; the machine is not told."""
    ends: list[Fetched] = []
    made = world.owner.info(object_id)
    monkeypatch.setattr(world.owner.runtime, "deliver", lambda domain, event: ends.append(event))
    world.owner.fetching.fetch(Fetch(object_id, made.manifest))
    world.owner.fetching.fetch(Fetch(object_id, made.manifest))  # as machines do that were loaded anew
    for _ in range(100):
        if ends:
            break
        world.pass_ms(1_000)
    return ends


@pytest.mark.parametrize("size", [0, 1, STRIPE, STRIPE + 1, 4 * STRIPE, len(DATA)])
def test_it_is_what_the_hosts_have(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    made = world.owner.put(DATA[:size])
    world.pass_ms(1_000)
    assert list(world.owner.blobs.names()) == []
    assert fetched(world, made.object_id, monkeypatch) == [Fetched(made.object_id, None)]
    kept, length = world.hosts[0].blobs, world.hosts[0].blobs.size(made.object_id)
    assert length is not None
    assert world.owner.blobs.size(made.object_id) == length
    assert world.owner.blobs.read(made.object_id, 0, length) == kept.read(made.object_id, 0, length)
    assert world.owner.blobs.is_durable(made.object_id)


def test_without_a_host_that_has_it_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    made = world.owner.put(DATA)
    world.pass_ms(1_000)
    for host in world.hosts:
        host.up = False
    (end,) = fetched(world, made.object_id, monkeypatch)
    assert isinstance(end.fault, Unavailable)
    assert end.fault.reason == "NoReplica"
    assert list(world.owner.blobs.names()) == []
    assert world.owner.blobs.all_staged() == []
