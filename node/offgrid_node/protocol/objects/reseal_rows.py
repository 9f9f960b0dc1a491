"""The rows of what is sealed anew (resealing.py): which are due, what the new one takes over from the one whose place
it takes, and what is told of those that wait."""

from __future__ import annotations

from collections.abc import Mapping

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.outbox import put_number
from offgrid_node.protocol.objects.segments import is_segment
from offgrid_node.protocol.objects.sharing import readers_of

WAITING_TOLD = 16
WHY_CHARS_MAX = 256
FORMERLY_MAX = 8  # ids of before that an object's readers are told; its owner's marks have all of them


def sealed_us(row: objects_pb2.ObjectRow) -> int:
    """When it was, by the clock of then."""
    return row.resealed_us or row.object.created_us


def is_due(row: objects_pb2.ObjectRow, before_us: int) -> bool:
    """Whether it was sealed before then, and is no half of one that is being sealed anew. Segments of the journal have
    keys of their own, and go by themselves."""
    return sealed_us(row) < before_us and not row.replaces and not is_segment(row.object.manifest)


def take_over(
    old: objects_pb2.ObjectRow, new: objects_pb2.ObjectRow, wraps: Mapping[str, bytes], self_id: str
) -> list[objects_pb2.KeyWrap]:
    """The new one becomes what the old one was, and is read by whoever read that; returns the wraps of those."""
    made, old_id = new.object, old.object.object_id
    new.request_id, new.checksum, new.replaces = old.request_id, old.checksum, ""
    new.name_number, made.name = put_number(old), old.object.name
    made.created_us, made.regained_us = old.object.created_us, old.object.regained_us
    made.formerly[:] = [*old.object.formerly, old_id][-FORMERLY_MAX:]
    own = [wrap for wrap in made.manifest.wraps if wrap.node_id == self_id]
    readers = [
        objects_pb2.KeyWrap(node_id=reader, sealed_key=wraps[reader])
        for reader in readers_of(old.object)
        if reader in wraps
    ]
    manifest = objects_pb2.Manifest(signed=made.manifest.signed, wraps=[*own, *readers], note=made.manifest.note)
    made.manifest.CopyFrom(manifest)
    return readers


def note(row: objects_pb2.ResealRow, object_id: str, why: str) -> None:
    unnote(row, object_id)
    row.told.waiting.add(object_id=object_id, why=why[:WHY_CHARS_MAX])
    del row.told.waiting[:-WAITING_TOLD]


def unnote(row: objects_pb2.ResealRow, object_id: str) -> None:
    kept = [each for each in row.told.waiting if each.object_id != object_id]
    row.told.ClearField("waiting")
    row.told.waiting.extend(kept)
