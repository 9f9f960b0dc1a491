"""`offgrid context …`"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, TextIO

import click

from offgrid.command_line.asking import secret
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid_tools.cli.contexts import Contexts

TOKEN_CHARS_MAX = 4_096
ASK_S = 10.0


@click.command()
@click.argument("name", metavar="NAME")
@click.option("--url", metavar="URL", help="Of its gateway, on this machine or another one: http://192.168.1.20:8001.")
@click.option("--token-file", type=click.File(), metavar="FILE", help="The gateway's token; - asks for it.")
@common
def add(name: str, url: str | None, token_file: TextIO | None) -> None:
    """Give the node of --node-dir, --socket or --url a name; without any, the one that is found from here.

    The token of a gateway (gateway.token in its node's config) is kept with the name, in a file for you alone. What you
    send over http can be read and changed on the way: use https, a tunnel or a VPN where others may listen.
    """
    from offgrid_tools.cli.contexts import NAME, NONE, changing

    if not NAME.match(name) or name == NONE:
        raise click.BadParameter(f"{name!r}: letters, digits and . _ -, at most 64; not {NONE!r}", param_hint="NAME")
    if token_file is not None and url is None:
        raise click.UsageError("--token-file goes with --url: other addresses need none")
    place = _place() if url is None else _gateway(url, token_file)
    with changing() as contexts:
        contexts.by_name[name] = place
    _say(contexts, name, f"added; `offgrid context use {name}` puts it in force, `--context {name}` for one command")


@click.command()
@click.argument("name", metavar="CONTEXT")
@common
def use(name: str) -> None:
    """Have commands talk to the node of that name from now on; "none" ends it."""
    from offgrid_tools.cli.contexts import NONE, changing

    with changing() as contexts:
        if name != NONE:
            contexts.address_of(name)
        contexts.current = "" if name == NONE else name
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
    from offgrid_tools.cli.contexts import changing

    with changing() as contexts:
        contexts.address_of(name)
        gone = _document(contexts, name)
        del contexts.by_name[name]
        contexts.current = contexts.current if contexts.current != name else ""
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


def _gateway(url: str, token_file: TextIO | None) -> Mapping[str, str]:
    """Asks it, so that a wrong token is seen now. Raises OffgridError."""
    from offgrid.client import connect

    if settings().node_dir or settings().socket:
        raise click.UsageError("--url, --node-dir and --socket are three ways to say which node: one of them")
    token = ""
    if token_file is not None:
        asked = token_file is sys.stdin and sys.stdin.isatty()
        token = secret("token") if asked else token_file.read(TOKEN_CHARS_MAX).strip()
    with connect(url, timeout_s=ASK_S, token=token) as client:
        client.mesh.status()
    return {"url": url, **({"token": token} if token else {})}


def _document(contexts: Contexts, name: str) -> dict[str, object]:
    from offgrid_tools.cli.contexts import PLACES

    said = contexts.by_name[name]
    address = {place: said.get(place) for place in PLACES}
    return {"name": name, **address, "current": name == contexts.current}


def _say(contexts: Contexts, name: str, what: str) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"context": _document(contexts, name) if name in contexts.by_name else None})
        return
    click.echo(f"context {name}: {what}")
