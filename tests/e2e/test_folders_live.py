"""A folder on a live mesh: put, read back without one of its hosts, shared, and deleted everywhere in the end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from live import eventually, mesh_of, offgrid

from offgrid_node.local_mesh import LocalMesh, LocalNode

HOSTS = ("host-a", "host-b", "host-c")
FILES = {"photos/a.jpg": os.urandom(3_000_000), "photos/2026/b.txt": b"small", "photos/2026/empty": b""}


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalMesh]:
    """An owner, three hosts and somebody to share with, whom nobody kills."""
    nodes = {"friend": ["broker"], "owner": ["core"], **{host: ["host"] for host in HOSTS}}
    with mesh_of(tmp_path_factory.mktemp("folders"), nodes) as mesh:
        yield mesh


def blobs(node: LocalNode) -> list[Path]:
    """What the node keeps of objects, and what is coming in."""
    return [path for path in (node.folder / "data" / "chunks").rglob("*") if path.is_file()]


def read_back(node: LocalNode, target: Path) -> dict[str, bytes]:
    done = offgrid(node, "get", "photos/", "-o", target)
    assert done.code == 0, done.said
    return {f"photos/{path.relative_to(target).as_posix()}": path.read_bytes()
            for path in target.rglob("*") if path.is_file()}  # fmt: skip


def test_a_folder_is_kept_read_shared_and_deleted(mesh: LocalMesh, tmp_path: Path) -> None:
    owner, friend, source = mesh["owner"], mesh["friend"], tmp_path / "photos"
    for name, data in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(data)
    done = offgrid(owner, "put", source, "--required", "2.0", "--json")
    assert done.code == 0, done.said
    made = {each["name"]: each for each in json.loads(done.out)["objects"]}
    assert set(made) == set(FILES)

    done = offgrid(owner, "share", "photos/a.jpg", "friend")
    assert done.code == 0, done.said
    eventually(lambda: "photos/a.jpg" in offgrid(friend, "ls", "--shared").out, "the friend hears of it")

    killed = mesh.by_id(made["photos/a.jpg"]["acks"][0]["node_id"])
    killed.kill()
    assert read_back(owner, tmp_path / "back") == FILES
    copy = tmp_path / "friends.jpg"
    done = offgrid(friend, "get", "photos/a.jpg", "--range", "1000-1999999", "-o", copy)
    assert done.code == 0, done.said
    assert copy.read_bytes() == FILES["photos/a.jpg"][1000:2000000]

    done = offgrid(owner, "rm", "--yes", "-r", "photos/")
    assert done.code == 0, done.said
    assert "there are no objects" in offgrid(owner, "ls").out
    assert blobs(killed), "it was away, and keeps them yet"
    eventually(lambda: killed.name in offgrid(owner, "ls", "--deleted").out, "the owner says who has not heard")
    killed.run("run")
    killed.wait_ready()
    eventually(
        lambda: "every host knows" in offgrid(owner, "ls", "--deleted").out, "all have heard, and the friend too"
    )
    for node in (owner, *(mesh[host] for host in HOSTS)):
        eventually(lambda node=node: not blobs(node), f"{node.name} keeps nothing of it")  # type: ignore[misc]
    assert "nobody shares anything" in offgrid(friend, "ls", "--shared").out
