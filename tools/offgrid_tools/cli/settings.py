"""The options that every command has, before or after its name: --json, --socket, --node-dir, --context."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, TypeVar

import click

from offgrid.command_line.endings import Run

if TYPE_CHECKING:
    from collections.abc import Callable

    from offgrid.client import Client

F = TypeVar("F", bound="Callable[..., object]")


class Settings(Run):
    """What the options said, in one object per run."""

    def __init__(self, *, json: bool = False) -> None:
        super().__init__(json=json)
        self.socket = ""
        self.node_dir = ""
        self.context = ""

    def connect(self, timeout_s: float = 0.0) -> Client:
        """The client of the node that was meant; closed when the command ends. Raises OffgridError."""
        from offgrid.client import DEFAULT_TIMEOUT_S, connect
        from offgrid_tools.cli.node_start import await_start

        address, token = self.where()
        await_start(address)
        seconds = timeout_s or DEFAULT_TIMEOUT_S
        client = connect(address, timeout_s=seconds, on_silence=self._say_silence, token=token)
        click.get_current_context().call_on_close(client.close)
        return client

    def where(self) -> tuple[str | None, str]:
        """Address of the node that was meant, and its gateway's token, as `offgrid.client.connect` takes them. Raises
        OffgridError."""
        if self.socket or self.node_dir:
            return self.socket or self.node_dir, ""
        from offgrid_tools.cli.contexts import chosen

        return chosen(self.context or os.environ.get("OFFGRID_CONTEXT", ""))

    def _say_silence(self, sentence: str) -> None:
        """The node is gone while a command follows something there; on standard error, once each time."""
        if self.json:
            import json

            sentence = json.dumps({"waiting": {"trouble": sentence}}, ensure_ascii=False)
        click.echo(sentence, err=True)


def settings() -> Settings:
    """The settings of the run that is going on."""
    return click.get_current_context().ensure_object(Settings)


def _keep(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value and param.name:
        setattr(ctx.ensure_object(Settings), param.name, value)


def common_options() -> list[click.Parameter]:
    """Fresh parameters that store what they are given into the run's Settings."""
    return [
        click.Option(["--json"], is_flag=True, expose_value=False, is_eager=True, callback=_keep,
                     help="One JSON document on standard output; streams: one per line."),
        click.Option(["--socket"], metavar="ADDRESS", expose_value=False, callback=_keep,
                     help="The node's socket (a path or unix:/path), 127.0.0.1:port, or a gateway's URL."),
        click.Option(["--node-dir"], metavar="DIR", expose_value=False, callback=_keep,
                     help="The node's folder: where its offgrid.toml or its data is."),
        click.Option(["--context"], metavar="CONTEXT", expose_value=False, callback=_keep,
                     help="The node of that name; see offgrid context. [env: OFFGRID_CONTEXT]"),
    ]  # fmt: skip


def common(function: F) -> F:
    """Gives a command the common options; the decorator to put right below `@click.command`."""
    params: list[click.Parameter] = getattr(function, "__click_params__", [])
    function.__click_params__ = [*common_options()[::-1], *params]  # type: ignore[attr-defined]  # click's own place
    return function
