"""A node's gateway serves the documents, behind what lets requests in."""

from __future__ import annotations

import urllib.request

import pytest

from offgrid_node.local_mesh import LocalMesh

pytestmark = pytest.mark.xdist_group("mesh")


def test_a_node_serves_the_documents_that_came_with_it(mesh: LocalMesh) -> None:
    with mesh["core"].client() as client:
        url = client.mesh.status().gateway
    with urllib.request.urlopen(f"{url}/docs") as answer:  # noqa: S310 - our own node
        assert answer.url == f"{url}/docs/"
        assert b"offgrid-node" in answer.read()
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
