"""What `offgrid status` says of a node's own objects, one sentence each."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from offgrid.v1 import objects_pb2
from offgrid_node.node import BACK_TOLD_US, Node, Parts
from offgrid_node.protocol.events import CORE
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.protocol.objects.tables import BACK, META, REGAINED, missing_key, number_key
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.sides import ObjectParts
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import (
    SimLetters,
    SimSigner,
    SimWraps,
    sim_check_certificate,
    sim_open,
    sim_seal,
    sim_verify,
)
from offgrid_tools.sim.engine import Engine, VirtualClock
from offgrid_tools.sim.founding import found

SIGNER, ROLES = SimSigner("core"), frozenset({CORE})


@pytest.fixture
def store() -> MemoryStore:
    """Of the one node of a mesh."""
    spec, kept = SimpleNamespace(name="core", roles=ROLES), MemoryStore()
    founder: Any = SimpleNamespace(spec=spec, signer=SIGNER, node_id=SIGNER.node_id, address="core:1", store=kept)
    found([founder])
    return kept


def node(store: MemoryStore) -> Node:
    return Node(
        Parts(
            store=store,
            clock=VirtualClock(Engine(1), 0, 0),
            rng=Random(1),
            signer=SIGNER,
            verify=sim_verify,
            check_certificate=sim_check_certificate,
            seal=sim_seal,
            open_sealed=sim_open,
            letters=SimLetters(SIGNER),
            roads=[],
            execute=lambda work: None,
            stop=lambda work: None,
            on_input=lambda: None,
            facts=lambda: NodeFacts("test", 0, "", 0.0, "virtual"),
            mesh=MeshSettings(ROLES, ("core:1",), (), "test", 2_000),
            jobs=JobsSettings(signer=SIGNER, salt=b""),
            objects=ObjectParts(MemoryBlobs(), Bulk(inline), SimWraps(SIGNER)),
            data_dir=Path(),
        )
    )


def test_nothing_is_said_where_all_is_well(store: MemoryStore) -> None:
    assert node(store).object_notices == ()


@pytest.mark.parametrize(("count", "what"), [(1, "an object that"), (3, "3 objects that")])
def test_what_came_back_after_the_disk_was_lost_is_told_for_a_month(store: MemoryStore, count: int, what: str) -> None:
    now_us = node(store).runtime.clock.now().utc_us
    for since_us, told in ((now_us - BACK_TOLD_US, True), (now_us - BACK_TOLD_US - 1, False)):
        store.commit(Batch(writes={(META, BACK): number_key(count) + number_key(since_us)}))
        said = node(store).object_notices
        assert len(said) == told
        assert all(each.startswith(what) and "`offgrid ls --regained`" in each for each in said)


def test_what_could_not_be_taken_back_is_told_as_long_as_that_is_so(store: MemoryStore) -> None:
    for count in (1, 2):
        row = objects_pb2.RegainedObject(object_id=f"o-{count}", since_us=1)
        store.commit(Batch(writes={(REGAINED, missing_key(f"o-{count}")): row.SerializeToString()}))
        (said,) = node(store).object_notices
        assert said.startswith("an object that" if count == 1 else "2 objects that")
        assert "could not be taken back" in said
