"""What executions of redundant jobs bring that is large: it waits here, as bytes in the blob store that a row names,
until their job has accepted one of them. That one's becomes objects of the core's and goes its way to hosts; the bytes
of all others are deleted.
"""

from __future__ import annotations

from offgrid.v1 import jobs_pb2, objects_pb2
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.events import ObjectAdded
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.objects.manifest import Manifest

HELD = "held_outputs"  # object id → Object, of what is to be one: its name and its manifest


class Held:
    """Of all executions whose job has not ended."""

    def __init__(self, post: Post) -> None:
        self._post = post
        self._rows: Rows | None = None
        self._fresh: dict[str, ObjectAdded] = {}  # not committed yet

    def load(self, rows: Rows) -> None:
        self._rows = rows

    def begin(self) -> None:
        """What earlier batches wrote is committed: it can be read back."""
        self._fresh.clear()

    def add(self, added: ObjectAdded) -> None:
        object_id = added.body.object_id
        row = objects_pb2.Object(object_id=object_id, name=added.name, manifest=added.manifest)
        row.required_milli = added.required_milli
        self._fresh[object_id] = added
        self._post.put(HELD, object_id.encode(), row)

    def release(self, result: jobs_pb2.JobResult) -> None:
        """They are the job's: objects from this very batch on."""
        for object_id in _objects_of(result):
            if (added := self._find(object_id)) is not None:
                self._post.tell("objects", added)
                self._forget(object_id)

    def drop(self, result: jobs_pb2.JobResult) -> None:
        """Nobody wants them: once that is committed, the bytes go. The result names them no more."""
        for object_id in _objects_of(result):
            self._forget(object_id)
            self._post.drop_blob(object_id)
        result.ClearField("output_object")
        result.ClearField("files_object")

    def _find(self, object_id: str) -> ObjectAdded | None:
        value = self._rows.get(HELD, object_id.encode()) if self._rows is not None else None
        if object_id in self._fresh or value is None:
            return self._fresh.get(object_id)
        row = objects_pb2.Object.FromString(value)
        return ObjectAdded(row.manifest, Manifest.decode(row.manifest.signed.body), row.name, row.required_milli)

    def _forget(self, object_id: str) -> None:
        self._fresh.pop(object_id, None)
        self._post.delete(HELD, object_id.encode())


def is_large(result: jobs_pb2.JobResult) -> bool:
    return any(_objects_of(result))


def _objects_of(result: jobs_pb2.JobResult) -> list[str]:
    return [object_id for object_id in (result.output_object, result.files_object) if object_id]
