"""The commands of `offgrid-node` that make it a service of the machine: `service install`, `uninstall`, `status`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offgrid.command_line import exits
from offgrid_node.options import FOLDER

if TYPE_CHECKING:
    from offgrid_node.system_service.order import Order, Plan

USER = click.option(
    "--user", is_flag=True, help="Of your account: no root needed. [default: of the machine, from boot]"
)
NAME = click.option(
    "--name", default="offgrid-node", show_default=True, metavar="NAME", help="Of the service, where there are several."
)


def _of_a_service(command: Callable[..., Any]) -> Callable[..., Any]:
    return NAME(USER(FOLDER(command)))


@click.command()
@_of_a_service
@click.option("--print", "shown", is_flag=True, help="Only show the file that would be written, and where.")
def install(folder: Path, user: bool, name: str, shown: bool) -> None:
    """Install and start the service; again after an upgrade, or where folders in the config have changed."""
    from offgrid_node.system_service.acting import install as install_now

    order, plan = _plan(folder, name, user=user)
    if shown:
        click.echo(f"# {plan.path}")
        encoding = "utf-16" if plan.content.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8"
        click.echo(plan.content.decode(encoding), nl=False)
        return
    install_now(plan, order, click.echo)


@click.command()
@_of_a_service
def uninstall(folder: Path, user: bool, name: str) -> int:
    """Stop the node and remove its service; the node's folder stays as it is."""
    from offgrid_node.system_service.acting import uninstall as uninstall_now

    order, plan = _plan(folder, name, user=user)
    if not uninstall_now(plan, order, click.echo):
        click.echo(f"there is no service {name}: {plan.title} does not exist", err=True)
        return exits.NOT_FOUND
    return exits.OK


@click.command()
@_of_a_service
def status(folder: Path, user: bool, name: str) -> int:
    """Show what the service manager says of it; `offgrid status` asks the node itself."""
    from offgrid_node.system_service.acting import status as ask

    order, plan = _plan(folder, name, user=user)
    return ask(plan, order)


def _plan(folder: Path, name: str, *, user: bool) -> tuple[Order, Plan]:
    from offgrid_node.folder import Folder
    from offgrid_node.protocol.ids import NAME as NAMES
    from offgrid_node.system_service.acting import order_for, plan_for

    if not NAMES.fullmatch(name):
        raise click.BadParameter(f"{name!r} is no name: a-z, 0-9 and '-'", param_hint="--name")
    order = order_for(folder, Folder(folder).config(), name, user=user)
    return order, plan_for(order)
