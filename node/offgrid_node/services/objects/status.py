"""What `offgrid status` says of a node's own objects, one sentence each."""

from __future__ import annotations

from offgrid_node.protocol.objects.machine import ObjectsMachine

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


def _objects(count: int) -> str:
    return "an object" if count == 1 else f"{count} objects"
