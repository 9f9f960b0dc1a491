"""Objects that are filled up to their size's class: hosts learn that, owner and readers the size."""

from __future__ import annotations

from typing import Any

import pytest
from bulk_world import STRIPE, Node, World
from hypothesis import given
from hypothesis import strategies as st
from test_small_objects import SmallWorld

from offgrid.plaintext import checksum_of
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import AlreadyExists, InvalidRequest
from offgrid_node.protocol.objects.manifest import FULL_COPIES, TAG_BYTES, Code, Manifest
from offgrid_node.protocol.objects.notices import GATHER_MS
from offgrid_node.protocol.objects.sizes import size_class
from offgrid_node.protocol.objects.tables import OBJECTS
from offgrid_node.services.objects.codes import NEVER_CODED, CodePolicy

Open, Write, Commit, Put, Read = (
    objects_pb2.OpenUploadRequest,
    objects_pb2.WriteUploadRequest,
    objects_pb2.CommitUploadRequest,
    objects_pb2.PutObjectRequest,
    objects_pb2.ReadObjectRequest,
)
DATA = bytes(range(1, 251)) * 4  # 1,000 bytes in a class of 1,024: no zeros among them
PADS = CodePolicy(Code(2, 4), 1_020, padded=True)


def upload(node: Node, data: bytes, cut: int = 0, **fields: Any) -> objects_pb2.Object:
    upload_id = node.ask("OpenUpload", Open(padded=True, **fields)).upload_id
    node.ask("WriteUpload", Write(upload_id=upload_id, data=data[:cut]))
    node.ask("WriteUpload", Write(upload_id=upload_id, offset=cut, data=data[cut:]))
    commit = Commit(upload_id=upload_id, size_bytes=len(data), checksum=checksum_of(data))
    made: objects_pb2.Object = node.ask("CommitUpload", commit).object
    return made


def put(node: Node, data: bytes = DATA, **fields: Any) -> objects_pb2.Object:
    made: objects_pb2.Object = node.ask("PutObject", Put(data=data, padded=True, **fields)).object
    return made


def manifest_of(made: objects_pb2.Object) -> Manifest:
    return Manifest.decode(made.manifest.signed.body)


def all_lengths(node: Node) -> object:
    """Of everything that a node keeps: keys and values of its rows, events, files."""
    rows = {
        table: sorted((len(key), len(value)) for key, value in node.store.scan(table)) for table in node.store.tables
    }
    return rows, [len(event) for event in node.store._events], sorted(map(node.blobs.size, node.blobs.names()))


@given(st.binary(max_size=5 * STRIPE), st.integers(0, 5 * STRIPE), st.integers(0, 5 * STRIPE), st.integers(0, 400))
def test_what_was_put_comes_back_whole_and_in_ranges(data: bytes, cut: int, offset: int, length: int) -> None:
    world, padded = World(1), size_class(len(data))
    made = upload(world.owner, data, min(cut, len(data)))
    assert (made.size_bytes, made.padded_bytes, manifest_of(made).size_bytes) == (len(data), padded, padded)
    assert world.owner.read(made.object_id) == data
    world.pass_ms(60_000)
    assert world.hosts[0].blobs.size(made.object_id) == padded + TAG_BYTES * max(1, -(-padded // STRIPE))
    part = Read(object=made.object_id, offset=offset, length=length)
    if offset > len(data):
        with pytest.raises(InvalidRequest, match=f"the object has {len(data)} bytes"):
            world.owner.ask("ReadObject", part)
    else:
        answer = world.owner.ask("ReadObject", part)
        end = min(offset + length if length else len(data), (offset // STRIPE + 1) * STRIPE)
        assert (answer.data, answer.size_bytes) == (data[offset:end], len(data))


class TestHosts:
    @pytest.mark.parametrize("small", [True, False])
    @pytest.mark.parametrize("code", [None, objects_pb2.Code(needed=2, total=4)])
    def test_cannot_tell_two_of_one_class(self, small: bool, code: objects_pb2.Code | None) -> None:
        def kept(size: int, *, padded: bool) -> tuple[list[object], set[bytes]]:
            world = SmallWorld(4) if small else World(4)
            request = Put(data=DATA[:size], padded=padded, code=code, name="n", required_milli=1_000)
            made = world.owner.ask("PutObject", request).object
            world.pass_ms(60_000)
            assert world.owner.info(made.object_id).state == objects_pb2.OBJECT_STATE_DURABLE
            rows = {
                key + value
                for host in world.hosts
                for table in host.store.tables
                for key, value in host.store.scan(table)
            }
            assert any(made.object_id.encode() in row for row in rows), "something is kept"
            return sorted(map(all_lengths, world.hosts), key=repr), rows  # which of them keep it, its id decides

        assert size_class(993) == size_class(1_000) == 1_024
        assert kept(993, padded=True)[0] == kept(1_000, padded=True)[0]
        assert kept(993, padded=False)[0] != kept(1_000, padded=False)[0], "else this test sees nothing"
        if not small:
            assert not any((1_000).to_bytes(8, "big") in row for row in kept(1_000, padded=True)[1])
            assert any((1_000).to_bytes(8, "big") in row for row in kept(1_000, padded=False)[1])

    def test_get_the_same_code_for_all_of_a_class(self) -> None:
        for size, code in ((993, PADS.code), (1_000, PADS.code), (992, FULL_COPIES)):
            assert PADS.code_for(Open(), size) == code
        assert PADS.code_for(Open(padded=False), 1_000) == FULL_COPIES
        assert PADS.pads(Put())
        assert not PADS.pads(Put(padded=False))
        assert NEVER_CODED.pads(Open(padded=True))


class TestTheOwner:
    def test_sees_its_size(self) -> None:
        world = SmallWorld()
        made = put(world.owner, name="n", required_milli=2_000)
        (seen,) = world.owner.ask("ListObjects", objects_pb2.ListObjectsRequest()).objects
        assert (made.size_bytes, made.padded_bytes, seen.size_bytes) == (1_000, 1_024, 1_000)
        assert world.owner.read("n") == DATA

    def test_reads_a_coded_one_from_what_hosts_are_left(self) -> None:
        world = World(4)
        made = put(world.owner, code=objects_pb2.Code(needed=2, total=4), required_milli=1_000)
        world.pass_ms(60_000)
        assert not world.owner.info(made.object_id).local
        world.hosts[0].up = world.hosts[1].up = False
        assert world.owner.read(made.object_id) == DATA

    def test_repeats_a_put_and_goes_on_with_one(self) -> None:
        world = World()
        made = upload(world.owner, DATA, request_id="r")
        world.owner.restart()
        opened = world.owner.ask("OpenUpload", Open(padded=True, request_id="r"))
        assert opened.offset == len(DATA), "of what was put; the zeros are nobody's bytes"
        commit = Commit(upload_id=opened.upload_id, size_bytes=len(DATA), checksum=checksum_of(DATA))
        assert world.owner.ask("CommitUpload", commit).object.object_id == made.object_id
        with pytest.raises(AlreadyExists):
            world.owner.ask("OpenUpload", Open(padded=False, request_id="r"))

    def test_has_all_padded_where_the_config_says_so(self) -> None:
        world = World()
        world.owner.coding = CodePolicy(FULL_COPIES, 1 << 40, padded=True)
        world.owner.restart()
        world.settle()
        made = world.owner.put(DATA)
        entry = world.owner.ask("Enqueue", objects_pb2.EnqueueRequest(key="k", data=DATA, etype=10)).entry
        assert {made.padded_bytes, world.owner.info(entry.object_id).padded_bytes} == {1_024}
        exact = world.owner.ask("PutObject", Put(data=DATA, padded=False)).object
        assert (exact.padded_bytes, manifest_of(exact).size_bytes, manifest_of(exact).sealed_size) == (0, 1_000, b"")


class TestAReader:
    def shared(self) -> tuple[World, Node, objects_pb2.Object]:
        world = World(4)
        made = put(world.owner, name="notes")
        world.pass_ms(60_000)
        world.owner.ask("ShareObject", objects_pb2.ShareObjectRequest(object="notes", node="host-0"))
        world.pass_ms(GATHER_MS)
        return world, world.hosts[0], made

    def test_learns_its_size_by_the_key(self) -> None:
        _, reader, made = self.shared()
        (seen,) = reader.ask("ListObjects", objects_pb2.ListObjectsRequest(shared=True)).objects
        assert (seen.size_bytes, seen.padded_bytes, reader.info("notes").size_bytes) == (1_000, 1_024, 1_000)
        assert reader.read(made.object_id) == DATA
        assert reader.store.get(OBJECTS, made.object_id.encode()) is None

    def test_sees_the_class_where_the_key_is_not_its_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world, reader, made = self.shared()
        row = world.owner.info("notes")
        key = world.owner.reading.key_of(row.manifest)
        monkeypatch.setattr("offgrid_tools.sim.crypto.SimWraps.unwrap", lambda *_: bytes(len(key)))
        assert reader.info(made.object_id).size_bytes == 1_024
