"""A coded object that a test lays out as it likes, over the owner and the hosts of `bulk_world.py`."""

from __future__ import annotations

from bulk_world import SALT, Node, World

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.errands import Ship
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import blob_name
from offgrid_node.protocol.objects.tables import quorum_id_of
from offgrid_node.protocol.quorum.records import Epoch, Member, sign_epoch
from offgrid_node.services.flow import run
from offgrid_node.services.objects.holders import Holders

K, N = 3, 5
DATA = bytes(range(256)) * 3 + b"and a little more"


class Coded:
    """DATA as 3 of 5, put at the owner while no host could be reached; `spread` brings shard i to host i."""

    def __init__(self, size_known: bool = True) -> None:
        self.world = World(N)
        self.owner, self.hosts = self.world.owner, self.world.hosts
        for host in self.hosts:
            host.up = False
        code = objects_pb2.Code(needed=K, total=N)
        request = objects_pb2.OpenUploadRequest(name="data", code=code)
        if size_known:
            request.size_bytes = len(DATA)
        opened = self.owner.ask("OpenUpload", request)
        self.owner.ask("WriteUpload", objects_pb2.WriteUploadRequest(upload_id=opened.upload_id, data=DATA))
        commit = objects_pb2.CommitUploadRequest(upload_id=opened.upload_id, size_bytes=len(DATA))
        self.made: objects_pb2.Object = self.owner.ask("CommitUpload", commit).object
        self.body = Manifest.decode(self.made.manifest.signed.body)
        self.layout = tuple(range(N))
        self.number = 100  # of the epoch: tests lay the shards, and what the owner's machine asks for is over
        for host in self.hosts:
            host.up = True

    def epoch(self) -> common_pb2.Signed:
        members = tuple(Member(host.node_id, 1_000) for host in self.hosts)
        body, owner = self.body, self.owner
        epoch = Epoch(
            owner.node_id,
            quorum_id_of(body.object_id),
            self.number,
            body.subject,
            body.sealed_bytes,
            2_000,
            members,
            K,
            self.layout,
            (0,) * N,
        )
        return sign_epoch(epoch, owner.signer, SALT)

    def spread(self) -> Coded:
        for host in self.hosts:
            self.ship(host)
        self.world.log.clear()
        return self

    def ship(self, host: Node) -> None:
        self.owner.ship(Ship(self.body.object_id, host.node_id, self.made.manifest, self.epoch()))
        self.world.settle()

    def held(self, host: Node) -> list[int]:
        names = {blob_name(self.body, shard): shard for shard in range(N)}
        return [names[name] for name in host.blobs.names()]

    @property
    def holders(self) -> Holders:
        return Holders(shards={shard: [self.hosts[at].node_id] for shard, at in enumerate(self.layout)})

    def read(self, holders: Holders | None = None, reader: Node | None = None) -> bytes:
        """From hosts alone; raises the fault."""
        self.owner.blobs.delete(self.body.object_id)
        holders, node = holders or self.holders, reader or self.owner
        key, data = self.owner.reading.key_of(self.made.manifest), b""
        for index in range(self.body.stripes):
            ends: list[object] = []
            run(node.reading.stripe(self.body, key, index, holders), ends.append)
            self.world.settle()
            for _ in range(10):
                if not ends:
                    self.world.pass_ms(1_000)
            (end,) = ends
            if isinstance(end, Fault):
                raise end
            assert isinstance(end, tuple)
            data += end[0]
        return data
