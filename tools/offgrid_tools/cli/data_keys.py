"""`offgrid keys`: the keys for which this node's objects are wrapped, and those under which they are sealed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.client.objects import Objects
    from offgrid.v1.objects_pb2 import GetDataKeysResponse, Reencryption

LOOK_S = 0.2
LEAVING = "it goes on by itself: `offgrid keys show` says how far it is, `offgrid keys reencrypt --stop` ends it"


@click.command()
@common
def show() -> None:
    """Show which data key is in use, and how far objects are wrapped for it, or sealed anew."""
    _say(settings().connect().objects.data_keys())


@click.command()
@click.option("--no-wait", is_flag=True, help="Do not wait until all is done; the node goes on by itself.")
@click.option("--reencrypt", is_flag=True, help="Then have each object sealed anew under another key: `reencrypt`.")
@common
def rotate(no_wait: bool, reencrypt: bool) -> int:
    """Begin a new data key.

    The key of each object is opened and sealed again for the new one; the object itself stays where it is, and readers
    are told their new wraps. A key of before opens nothing that was made or rewritten since. Whoever has had an
    object's own key keeps it: --reencrypt takes that back.
    """
    objects = settings().connect().objects
    objects.rotate_keys()
    while objects.data_keys().under_way and not no_wait:
        time.sleep(LOOK_S)
    return _reencrypt(objects, no_wait) if reencrypt else _say(objects.data_keys())


@click.command()
@click.option("--no-wait", is_flag=True, help="Do not wait until all is done; the node goes on by itself.")
@click.option("--stop", is_flag=True, help="No more of them; what is sealed anew and durable by now takes its place.")
@common
def reencrypt(no_wait: bool, stop: bool) -> int:
    """Have every object that is older than the data key of now sealed anew, under another key of its own.

    This node does so in the background, one object after another, over restarts, and behind other work; Ctrl-C only
    ends the looking on. An object has another id afterwards, and the same name, readers and expiry; whoever asks for it
    by an id of before gets it. Those that a job needs wait until it has ended. Exit code 1 where some were left out
    since their bytes are damaged or their way to hosts was given up.
    """
    if no_wait and stop:
        raise click.UsageError("--stop has nothing to wait for; --no-wait does not go with it")
    objects = settings().connect().objects
    if stop:
        objects.stop_reencryption()
        return _say(objects.data_keys())
    return _reencrypt(objects, no_wait)


def _reencrypt(objects: Objects, no_wait: bool) -> int:
    told = objects.reencrypt()
    try:
        with _progress() as tell:
            while told.under_way and not no_wait:
                tell(told)
                time.sleep(LOOK_S)
                told = objects.data_keys().reencryption
    except KeyboardInterrupt:
        click.echo(LEAVING, err=True)
        raise
    _say(keys := objects.data_keys())
    if not told.objects and not settings().json:
        click.echo(
            f"nothing is older than the data key of now, number {keys.number}; `keys rotate` begins the next one"
        )
    return exits.FAILED if told.left_out and not told.under_way else exits.OK


@contextmanager
def _progress() -> Iterator[Callable[[Reencryption], None]]:
    """On a terminal how far it is; what waits and why on standard error in any case, each once."""
    said: set[tuple[str, str]] = set()

    def warn(told: Reencryption, say: Callable[[str], None]) -> None:
        from offgrid.command_line.terminal import clean

        for each in told.waiting:
            if (each.object_id, each.why) not in said:
                said.add((each.object_id, each.why))
                say(f"{each.object_id} waits: {clean(each.why)}")

    if settings().json or not sys.stderr.isatty():
        yield lambda told: None if settings().json else warn(told, lambda line: click.echo(line, err=True))
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    with console.status("sealing anew") as shown:

        def tell(told: Reencryption) -> None:
            warn(told, lambda line: console.print(line, markup=False, soft_wrap=True))
            shown.update(f"sealing anew: {_far(told)}")

        yield tell


def _far(told: Reencryption) -> str:
    from offgrid_tools.cli.output import size

    out = f", {told.left_out} of them left out" if told.left_out else ""
    return f"{told.sealed} of {told.objects}, {size(told.sealed_bytes)}; {told.left} left{out}"


def _say(keys: GetDataKeysResponse) -> int:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(keys)
        return exits.OK
    from offgrid_tools.cli.output import facts

    told = keys.reencryption
    state = "under way" if told.under_way else "ended"
    facts(
        [
            ("data key", f"number {keys.number}"),
            ("rewrapping", "under way" if keys.under_way else "done"),
            ("objects", f"{keys.objects_looked_at} looked at, {keys.wraps_written} wraps written"),
            ("unopened", keys.objects_unopened or ""),
            ("sealing anew", f"{state}, {_far(told)}" if told.objects else ""),
            *(("waits", f"{each.object_id}: {each.why}") for each in told.waiting),
        ]
    )
    return exits.OK
