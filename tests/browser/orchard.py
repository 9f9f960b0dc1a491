"""What the mesh of the page's tests is made of."""

from __future__ import annotations

from offgrid_node.local_mesh import LocalMesh

NODES = {"attic": ["core", "broker"], "barn": ["host"], "cellar": ["host"], "shed": ["host"]}
TOKEN = "only-this-test-knows-it"
HOSTILE = '<img src=x onerror="window.pwned=1">'
EVENTS = 40  # of the session that is shown


def url_of(mesh: LocalMesh, name: str) -> str:
    return f"http://{mesh[name].settings['gateway.listen']}"
