"""What an owner notes down of an object for itself, sealed beside its manifest: hosts keep it, and whoever lost its
disk has the object's name and the call that made it by that (`regaining.py`)."""

from __future__ import annotations

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.objects.commands import Enqueue


def note_of(
    name: str,
    request_id: str,
    digest: bytes,
    checksum: bytes,
    copies: int,
    enqueue: Enqueue | None,
    *,
    for_job: bool,
    replaces: str = "",
) -> objects_pb2.ObjectNote:
    """As AddObject has them."""
    note = objects_pb2.ObjectNote(
        name=name, request_id=request_id, digest=digest, checksum=checksum, copies=copies, for_job=for_job
    )
    if enqueue is not None:
        note.key, note.etype = enqueue.key, enqueue.etype
    note.replaces = replaces
    return note
