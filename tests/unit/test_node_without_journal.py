"""A node whose journal is cut no more notes nothing down: should it be cut again, that begins with all rows."""

from __future__ import annotations

from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest

from offgrid_node.node import Node
from offgrid_node.parts import Parts
from offgrid_node.protocol.events import CORE
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.protocol.state.tables import JOURNAL, NOTING_KEY
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.objects.sides import ObjectParts
from offgrid_node.session_vault import SessionVault
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs
from offgrid_node.storage.memory_session_keys import MemorySessionKeys
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
    """Of the one node of a mesh, which noted down what it changed."""
    spec, kept = SimpleNamespace(name="core", roles=ROLES), MemoryStore()
    founder: Any = SimpleNamespace(spec=spec, signer=SIGNER, node_id=SIGNER.node_id, address="core:1", store=kept)
    found([founder])
    kept.commit(Batch(writes={(JOURNAL, NOTING_KEY): b"\1"}))
    return kept


def run(store: MemoryStore, *, cuts_journal: bool) -> None:
    Node(
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
            objects=ObjectParts(MemoryBlobs(), Bulk(inline), SimWraps(SIGNER), cuts_journal=cuts_journal),
            vault=SessionVault(MemorySessionKeys()),
            data_dir=Path(),
        )
    )


@pytest.mark.parametrize("cuts_journal", [True, False])
def test_what_it_changes_is_noted_down_or_nothing_says_that_it_is(store: MemoryStore, *, cuts_journal: bool) -> None:
    run(store, cuts_journal=cuts_journal)
    assert (store.get(JOURNAL, NOTING_KEY) is not None) == cuts_journal
