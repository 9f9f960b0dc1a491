"""What `offgrid status` says of a node's own objects, one sentence each."""

from __future__ import annotations

from collections.abc import Iterable

from offgrid.v1 import mesh_pb2, objects_pb2
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Corrupt
from offgrid_node.protocol.objects.machine import ObjectsMachine
from offgrid_node.protocol.objects.risks import Told
from offgrid_node.protocol.objects.tables import OBJECTS

ID_CHARS = 12  # of an object without a name
BACK_TOLD_US = 30 * 86_400_000_000  # so long it tells what came back from hosts


def object_notices(objects: ObjectsMachine, now_us: int) -> tuple[str, ...]:
    notices = []
    if count := objects.damaged:
        what = "an object that was" if count == 1 else f"{count} objects that were"
        notices.append(f"{what} never durable are damaged here; `offgrid outbox --open` names them")
    if count := objects.missing:
        notices.append(
            f"{_objects(count)} that this node had forgotten could not be taken back from hosts yet; "
            "`offgrid ls --regained` says why"
        )
    if count := objects.back_since(now_us - BACK_TOLD_US):
        notices.append(
            f"{_objects(count)} that this node had forgotten with its disk came back from hosts; "
            "`offgrid ls --regained` says which, and who claims to be a reader"
        )
    if count := objects.left_to_reseal:
        what = "an object is" if count == 1 else f"{count} objects are"
        notices.append(f"{what} still to be sealed anew; `offgrid keys show` says how far that is")
    return tuple(notices)


def object_risks(told: Told, rows: Rows) -> mesh_pb2.ObjectRisks:
    """With names, as `rows` have them."""
    return mesh_pb2.ObjectRisks(
        gone=told.gone,
        at_risk=told.at_risk,
        degraded=told.degraded,
        gone_names=_names(told.gone_ids, rows),
        at_risk_names=_names(told.at_risk_ids, rows),
        away=told.away,
        unjudged=told.unjudged,
    )


def _names(ids: Iterable[str], rows: Rows) -> list[str]:
    return [_name(object_id, rows) or object_id[:ID_CHARS] for object_id in ids]


def _name(object_id: str, rows: Rows) -> str:
    try:
        return objects_pb2.ObjectRow.FromString(rows.get(OBJECTS, object_id.encode()) or b"").object.name
    except Corrupt:
        return ""


def _objects(count: int) -> str:
    return "an object" if count == 1 else f"{count} objects"
