"""A host of `bulk_world` whose files are real, so that a test may damage them."""

from __future__ import annotations

from pathlib import Path

from bulk_world import Node, World

from offgrid_node.storage import blobs

DATA = bytes(range(256)) * 2


def with_files(world: World, folder: Path) -> Node:
    """The first host, which keeps its blobs in this folder from now on."""
    host = world.hosts[0]
    host.blobs = blobs.FileBlobs(folder)
    host.restart()
    world.settle()
    return host


def put(world: World, name: str, data: bytes = DATA) -> str:
    """In memory of its owner as long as no host has the other copies that are wanted."""
    object_id = world.owner.put(data, name=name, required_milli=1_000).object_id
    world.pass_ms(1_000)
    return object_id


def kept_file(folder: Path, object_id: str) -> Path:
    return folder / blobs.KEPT / object_id


def flip(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(data)
