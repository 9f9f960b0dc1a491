"""What must be true of objects when the killing is over: all that was acknowledged is durable and reads back, with its
owner and with whoever it is shared with, and what was deleted is gone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress

from offgrid.client import OffgridError
from offgrid.v1 import objects_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_tools.soak.keeping import Kept
from offgrid_tools.soak.patience import Patience

POLL_S = 0.2
DURABLE = objects_pb2.OBJECT_STATE_DURABLE


def settle_outboxes(mesh: LocalMesh, patience: Patience) -> list[str]:
    """Waits until no entry of any outbox is open; says which are."""
    stuck = {name: [f"{name}:unknown"] for name in mesh.nodes}
    while any(stuck.values()) and patience.waits_for(
        entry.split()[0] for entries in stuck.values() for entry in entries
    ):
        for name in [name for name, entries in stuck.items() if entries]:
            with suppress(OffgridError), mesh[name].client(10) as client:
                stuck[name] = [f"{entry.id} ({entry.trouble})" for entry in client.objects.outbox(open_only=True)]
        time.sleep(POLL_S if any(stuck.values()) else 0)
    return [f"{name}: outbox entry {entry} is open" for name, entries in stuck.items() for entry in entries]


def audit_deleted(owner: LocalNode, deleted: Iterable[str]) -> list[str]:
    """None of it comes back."""
    broken = []
    with owner.client(60) as client:
        for object_id in deleted:
            try:
                client.objects.get(object_id)
                broken.append(f"object {object_id} of {owner.name} was deleted, and is there")
            except OffgridError as error:
                if error.reason != "ObjectDeleted":
                    broken.append(f"object {object_id} of {owner.name} was deleted, and it says {error.message}")
    return broken


def audit_shared(mesh: LocalMesh, kept: Iterable[Kept]) -> list[str]:
    """Whoever was let read an object can, once he has heard of it."""
    return [
        f"object {thing.object_id} is shared with {thing.reader}, and is not read there"
        for thing in kept
        if thing.reader and not _reads(mesh[thing.reader], thing, Patience())
    ]


def _reads(reader: LocalNode, thing: Kept, patience: Patience) -> bool:
    while True:
        with suppress(OffgridError), reader.client(60) as client:
            return client.objects.read(thing.object_id) == thing.data
        if not patience.waits_for([thing.object_id]):
            return False
        time.sleep(POLL_S)


def audit_objects(owner: LocalNode, kept: Iterable[Kept]) -> list[str]:
    """Every acknowledged object is durable, and its bytes come back, from whoever has them."""
    broken = []
    with owner.client(60) as client:
        for thing in kept:
            try:
                if client.objects.get(thing.object_id).state != DURABLE:
                    broken.append(f"object {thing.object_id} of {owner.name} is not durable")
                if client.objects.read(thing.object_id) != thing.data:
                    broken.append(f"object {thing.object_id} of {owner.name} reads back as something else")
            except OffgridError as error:
                broken.append(f"object {thing.object_id} of {owner.name} is lost: {error.reason}: {error.message}")
    return broken
