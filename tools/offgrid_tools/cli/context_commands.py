"""`offgrid context …`"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid_tools.cli.contexts import Contexts


@click.command()
@click.argument("name", metavar="NAME")
@common
def add(name: str) -> None:
    """Give the node of --node-dir or --socket a name; without either, the one that is found from here."""
    from offgrid_tools.cli.contexts import NAME, NONE, load

    if not NAME.match(name) or name == NONE:
        raise click.BadParameter(f"{name!r}: letters, digits and . _ -, at most 64; not {NONE!r}", param_hint="NAME")
    contexts = load()
    contexts.by_name[name] = _place()
    contexts.write()
    _say(contexts, name, f"added; `offgrid context use {name}` puts it in force, `--context {name}` for one command")


@click.command()
@click.argument("name", metavar="CONTEXT")
@common
def use(name: str) -> None:
    """Have commands talk to the node of that name from now on; "none" ends it."""
    from offgrid_tools.cli.contexts import NONE, load

    contexts = load()
    if name != NONE:
        contexts.address_of(name)
    contexts.current = "" if name == NONE else name
    contexts.write()
    _say(contexts, name, "in force" if contexts.current else "the node is looked for from where you are")


@click.command()
@common
def ls() -> None:
    """List the names, and which one is in force."""
    from offgrid_tools.cli.contexts import load

    contexts = load()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        found = [_document(contexts, name) for name in sorted(contexts.by_name)]
        emit({"current": contexts.current, "contexts": found})
        return
    from offgrid_tools.cli.output import table

    table(
        ("name", "node", "in force"),
        ((name, contexts.address_of(name), "yes" * (name == contexts.current)) for name in sorted(contexts.by_name)),
        empty="there are no contexts; `offgrid context add NAME --node-dir DIR` makes one",
    )


@click.command()
@click.argument("name", metavar="CONTEXT")
@common
def rm(name: str) -> None:
    """Forget a name; the node stays what it is."""
    from offgrid_tools.cli.contexts import load

    contexts = load()
    contexts.address_of(name)
    gone = _document(contexts, name)
    del contexts.by_name[name]
    contexts.current = contexts.current if contexts.current != name else ""
    contexts.write()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"context": gone})
        return
    click.echo(f"context {name}: forgotten")


def _place() -> Mapping[str, str]:
    """What was said, so that it holds from any folder. Raises OffgridError when no node is there now."""
    from offgrid.client import find

    said = settings()
    if said.node_dir:
        find(said.node_dir)
        return {"node_dir": os.path.abspath(os.path.expanduser(said.node_dir))}
    return {"socket": find(said.socket or None).target}


def _document(contexts: Contexts, name: str) -> dict[str, object]:
    said = contexts.by_name[name]
    address = {"node_dir": said.get("node_dir"), "socket": said.get("socket")}
    return {"name": name, **address, "current": name == contexts.current}


def _say(contexts: Contexts, name: str, what: str) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"context": _document(contexts, name) if name in contexts.by_name else None})
        return
    click.echo(f"context {name}: {what}")
