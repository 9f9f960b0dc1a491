"""`offgrid state kinds` and `register-kind`: what applications may record, and by which schema."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.v1.state_pb2 import Kind


@click.command()
@click.argument("kind", metavar="[KIND]", required=False)
@common
def kinds(kind: str | None) -> None:
    """List the kinds of events that this node knows; of one KIND show the schema."""
    import json

    told = settings().connect().sessions.kinds()
    found = [each for each in told.kinds if kind in (None, each.kind)]
    if kind is not None and not found:
        raise click.BadParameter(
            f"{kind!r} is not known; there are {', '.join(each.kind for each in told.kinds)}", param_hint="KIND"
        )
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"kinds": [_document(each) for each in found], "store_raw_content": told.store_raw_content})
        return
    if kind is not None:
        click.echo(json.dumps(json.loads(found[0].schema), indent=2, ensure_ascii=False))
        return
    from offgrid_tools.cli.output import table, when

    table(
        ("kind", "registered", "what it says"),
        (
            (each.kind, when(each.registered_us) if each.registered_us else "known everywhere", _said(each))
            for each in found
        ),
        empty="no kinds are known",
    )


@click.command()
@click.argument("kind", metavar="KIND")
@click.argument("schema", type=click.File("rb"), metavar="FILE")
@common
def register_kind(kind: str, schema: Any) -> None:
    """Let events of KIND be recorded, as the JSON Schema in FILE (- is standard input) has them."""
    import json

    try:
        read = json.load(schema)
    except ValueError as error:
        raise click.BadParameter(f"{schema.name} is no JSON: {error}", param_hint="FILE") from error
    kept = settings().connect().sessions.register_kind(kind, read)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"kind": _document(kept)})
        return
    click.echo(f"{kept.kind} is known to this node")


def _document(kind: Kind) -> dict[str, Any]:
    import json

    return {"kind": kind.kind, "registered_us": kind.registered_us, "schema": json.loads(kind.schema)}


def _said(kind: Kind) -> str:
    """Its own word of itself, or the names of its fields."""
    import json

    schema = json.loads(kind.schema)
    if not isinstance(schema, dict):
        return ""
    return str(schema.get("description") or ", ".join(schema.get("properties", {})))
