"""`offgrid completion`, and what a shell offers for the word that is being typed: also what the node has of it.

A command's arguments and options are named for what they are (JOB, NODE, OBJECT); by that name THINGS has where to ask.
A node that does not answer within ANSWER_S is not waited for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from offgrid_tools.cli.settings import Settings, common

if TYPE_CHECKING:
    from offgrid.client import Client

SHELLS = ("bash", "zsh", "fish", "powershell")
PROGRAMS = {"offgrid": "_OFFGRID_COMPLETE", "offgrid-node": "_OFFGRID_NODE_COMPLETE"}
ANSWER_S = 0.15
SHOWN_MAX = 100
PLAIN = re.compile(r"[\w@%+=:,./~-]+\Z")  # what a shell takes as one word as it stands
METAVAR = re.compile(r"[A-Z]+")

Thing = tuple[str, str]
"""What is typed, and what it is."""
List = Callable[[Any], Iterable[Thing]]
"""Asks a client of the node's."""


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@common
def completion(shell: str) -> None:
    """Print what makes a shell complete `offgrid` and `offgrid-node`: commands, options, and what the node has.

    \b
    bash        offgrid completion bash >> ~/.bashrc
    zsh         offgrid completion zsh >> ~/.zshrc
    fish        offgrid completion fish > ~/.config/fish/conf.d/offgrid.fish
    PowerShell  offgrid completion powershell >> $PROFILE
    """
    from offgrid.command_line.shells import script

    click.echo(script(shell, [*PROGRAMS.items()]))


def aid(command: click.Command) -> None:
    """Has the command's parameters offer what they are named for."""
    for param in command.params:
        named = METAVAR.search(param.make_metavar(click.Context(command)) if param.metavar else "")
        thing = THINGS.get(named[0]) if named else None
        if thing is not None:
            param.type = _Offering(thing)


class _Offering(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.2 only
    """Offers things; takes whatever is typed."""

    name = "text"

    def __init__(self, list_things: List) -> None:
        self._list = list_things

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        try:
            found = list(islice(_begun(self._things(ctx), incomplete), SHOWN_MAX))
        except Exception:  # noqa: BLE001 - a shell that completes is told nothing of faults
            return []
        return [CompletionItem(value, help=about) for value, about in found]

    def _things(self, ctx: click.Context) -> Iterator[Thing]:
        from offgrid.client import connect

        if self._list in OF_NO_NODE:
            yield from self._list(None)
            return
        address, token = ctx.ensure_object(Settings).where()
        with connect(address, timeout_s=ANSWER_S, token=token) as client:
            yield from islice(self._list(client), 10 * SHOWN_MAX)


def _begun(things: Iterable[Thing], incomplete: str) -> Iterator[Thing]:
    seen = set[str]()
    for value, about in things:
        if value.startswith(incomplete) and value not in seen and PLAIN.match(value):
            seen.add(value)
            yield value, about


# ---- what there is


def _nodes(client: Client) -> Iterator[Thing]:
    for peer in client.mesh.peers():
        yield peer.member.name, peer.member.node_id


def _jobs(client: Client) -> Iterator[Thing]:
    from offgrid.v1.jobs_pb2 import JobState
    from offgrid_tools.cli.output import word

    for job in client.jobs.list(newest_first=True, limit=SHOWN_MAX):
        yield job.job_id, f"{word(JobState, job.state)} {job.input_name}".strip()


def _missions(client: Client) -> Iterator[Thing]:
    return ((each.mission_id, each.title) for each in client.missions.list(limit=SHOWN_MAX))


def _tasks(client: Client) -> Iterator[Thing]:
    return ((each.task_id, each.name) for each in client.tasks.list(limit=SHOWN_MAX))


def _schedules(client: Client) -> Iterator[Thing]:
    return ((each.schedule_id, each.name) for each in client.schedules.list(limit=SHOWN_MAX))


def _objects(client: Client) -> Iterator[Thing]:
    for made in client.objects.list(limit=SHOWN_MAX):
        yield made.name if PLAIN.match(made.name) else made.object_id, made.object_id
        yield made.object_id, made.name


def _sessions(client: Client) -> Iterator[Thing]:
    for session in client.sessions.list(limit=SHOWN_MAX):
        yield session.name if PLAIN.match(session.name) else session.session_id, session.session_id


def _kinds(client: Client) -> Iterator[Thing]:
    return ((each.kind, "") for each in client.sessions.kinds().kinds)


def _quorums(client: Client) -> Iterator[Thing]:
    return ((each.quorum_id, "reached" if each.reached else "open") for each in client.quorum.list(limit=SHOWN_MAX))


def _transactions(client: Client) -> Iterator[Thing]:
    return ((each.tx_id, "") for each in client.ledger.history(limit=SHOWN_MAX))


def _messages(client: Client) -> Iterator[Thing]:
    return ((each.message_id, each.name) for each in client.mail.messages(limit=SHOWN_MAX))


def _entries(client: Client) -> Iterator[Thing]:
    return ((str(each.id), each.key) for each in client.objects.outbox(open_only=True, limit=SHOWN_MAX))


def _contexts(_: None) -> Iterator[Thing]:
    from offgrid_tools.cli.contexts import load

    contexts = load()
    return ((name, contexts.address_of(name)) for name in sorted(contexts.by_name))


def _types(_: None) -> Iterator[Thing]:
    from offgrid.event_types import EventType

    return ((each.name, str(int(each))) for each in EventType)


OF_NO_NODE: tuple[List, ...] = (_contexts, _types)
THINGS: Mapping[str, List] = {
    "NODE": _nodes, "ACCOUNT": _nodes, "OWNER": _nodes, "JOB": _jobs, "MISSION": _missions, "TASK": _tasks,
    "SCHEDULE": _schedules, "OBJECT": _objects, "PREFIX": _objects, "SESSION": _sessions, "KIND": _kinds,
    "QUORUM": _quorums, "TX": _transactions, "MESSAGE": _messages, "ENTRY": _entries,
    "CONTEXT": _contexts, "TYPE": _types,
}  # fmt: skip
