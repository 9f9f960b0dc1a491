"""Real nodes for the end-to-end tests; every process that is started here is stopped here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from live import log_of

from offgrid_node.local_mesh import LocalMesh

COMMANDS = {"wc": "/usr/bin/wc", "sh": "/bin/sh"}
FIVE = {"core": ["core"], "broker": ["broker"], "host-a": ["host"], "host-b": ["host"], "host-c": ["host"]}
SECRET, WITH_SECRET = "a secret that all share", ("broker", "host-c")  # for old paths that are signed
SHARED = "mesh"  # the group of the tests that share one
STARTED = pytest.StashKey[LocalMesh]()

MakeMesh = Callable[..., LocalMesh]


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the order
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those of the shared mesh follow one another where there is one worker, too, and are the first: there are many."""
    here = Path(__file__).parent
    mine = [item for item in items if item.path.parent == here]
    for item in mine:
        item.add_marker(pytest.mark.e2e)
    shared = {item for item in mine if _group(item) == SHARED}
    items.sort(key=lambda item: item not in shared)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """The shared mesh ends with the last of its group: a session fixture would run beside all other tests, too."""
    if _group(item) == SHARED and _group(nextitem) != SHARED and (mesh := item.session.stash.get(STARTED, None)):
        _end(mesh)


def _end(mesh: LocalMesh) -> None:
    stopped = mesh.stop()
    assert set(stopped.values()) <= {0}, stopped
    assert all(log_of(node) for node in mesh.nodes.values())


def _group(item: pytest.Item | None) -> str:
    mark = item and item.get_closest_marker("xdist_group")
    return mark.args[0] if mark else ""


@pytest.fixture(scope="session")
def mesh(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """One core, one broker, three hosts. Tests may kill its nodes and must start them again.

    Whoever uses it is marked xdist_group("mesh")."""
    with LocalMesh(
        tmp_path_factory.mktemp("mesh"),
        "t",
        FIVE,
        host__process__commands=COMMANDS,
        metrics__listen="127.0.0.1:0",
        gateway__listen="127.0.0.1:0",
    ) as mesh:
        for name in WITH_SECRET:
            mesh[name].settings = {**mesh[name].settings, "gateway.auth_key": SECRET}
        mesh.start()
        mesh.wait_alive()
        mesh.wait_offers(3)
        request.session.stash[STARTED] = mesh
        yield mesh
        _end(mesh)


@pytest.fixture
def make_mesh(tmp_path: Path) -> Iterator[MakeMesh]:
    """Makes and starts a mesh for one test; it is stopped afterwards."""
    with ExitStack() as stack:

        def make(nodes: Mapping[str, Sequence[str]], **settings: object) -> LocalMesh:
            mesh = stack.enter_context(LocalMesh(tmp_path, "t", nodes, **settings))
            mesh.start()
            mesh.wait_alive()
            return mesh

        yield make
