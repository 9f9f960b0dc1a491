"""What `offgrid ls --regained` shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from offgrid_tools.cli.settings import settings

if TYPE_CHECKING:
    from offgrid.client import Client
    from offgrid.v1.objects_pb2 import RegainedObject


def show_regained(client: Client, limit: int | None) -> None:
    """What this node forgot with its disk, the oldest first, and what each of it lacks."""
    found = client.objects.regained(limit=limit)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"objects": [json_of(each) for each in found]})
        return
    from offgrid_tools.cli.jobs import node_names
    from offgrid_tools.cli.output import cut, size, table, when

    names = node_names(client)
    table(
        ("object", "name", "size", "state", "since", "lacks"),
        (
            (r.object_id, cut(r.object.name), size(r.object.size_bytes) if r.back else "",
             "back" if r.back else "missing", when(r.since_us), _lacks(r, names))
            for r in sorted(found, key=lambda r: r.since_us)
        ),
        empty="this node has forgotten nothing that hosts keep",
    )  # fmt: skip


def _lacks(regained: RegainedObject, names: dict[str, str]) -> str:
    from offgrid_tools.cli.jobs import named

    if not regained.back:
        return f"{regained.trouble} (kept by {named(regained.node, names)}; `offgrid rm` gives it up)"
    known = {wrap.node_id for wrap in regained.object.manifest.wraps}
    readers = [named(node, names) for node in regained.readers if node not in known]
    said = (
        f"readers: {', '.join(readers)}, by their own word or older rows (`offgrid share` names them again)"
        if readers
        else ""
    )
    return "; ".join(filter(None, ("" if regained.object.name else "its name, if it had one", said)))
