"""The commands of `offgrid-node` for a store that is lost, or of an older version: `restore` and `migrate`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid.command_line.asking import secret
from offgrid.command_line.terminal import counted
from offgrid_node.options import FOLDER, ROLE, SETTINGS, parse_settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from offgrid.backup.recovery import Secret
    from offgrid_node.keys import NodeKey
    from offgrid_node.restoring_backup import CameBack


@click.command()
@FOLDER
@click.option(
    "--via",
    "address",
    metavar="HOST:PORT",
    help="Where any member of the mesh listens; with --backup it is asked whether hosts keep what is newer.",
)
@click.option(
    "--backup",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="From a backup that the node wrote.",
)
@click.option(
    "--recovery-secret",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Opens the backup, and the keys of its sessions: the recovery key's file.",
)
@click.option("--passphrase", is_flag=True, help="Ask for the passphrase by which the backup is sealed.")
@click.option(
    "--wrapped-keys",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The keys of its sessions. [default: keys.wrapped beside the backup]",
)
@click.option(
    "--key",
    "key_file",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A copy of the lost node's keys/node.key.",
)
@click.option("--words", is_flag=True, help="Ask for the 24 recovery words in place of a key file.")
@click.option(
    "--give-up-newer",
    is_flag=True,
    help="With --backup: what hosts keep from after it is lost for good.",
)
@click.option("--dry-run", is_flag=True, help="Only say what would come back.")
@ROLE
@SETTINGS
def restore(
    folder: Path,
    address: str | None,
    backup: Path | None,
    recovery_secret: Path | None,
    passphrase: bool,
    wrapped_keys: Path | None,
    key_file: Path | None,
    words: bool,
    give_up_newer: bool,
    dry_run: bool,
    roles: tuple[str, ...],
    settings: tuple[str, ...],
) -> None:
    """Bring a node that has lost its disk back into an empty folder: from what other members keep of its journal, or
    from a backup, which is as old as it is."""
    from offgrid_node.keys import NodeKey
    from offgrid_node.keys.words import seed_of

    if address is None and backup is None:
        raise click.UsageError("say from where: --via HOST:PORT or --backup FILE")
    if give_up_newer and backup is None:
        raise click.UsageError("--give-up-newer goes with --backup: without it the newest comes back")
    if (key_file is None) == (not words):
        raise click.UsageError("say whose node it is: --key FILE or --words, one of them")
    key = NodeKey.read(key_file) if key_file is not None else NodeKey(seed_of(secret("recovery words")))
    chosen = roles or ("core", "broker", "host")
    if backup is not None:
        opens = _opening(recovery_secret, passphrase)
        from offgrid_node.restoring_backup import restore_backup

        made = restore_backup(
            folder,
            backup,
            key,
            chosen,
            parse_settings(settings),
            secret=opens,
            wrapped=wrapped_keys,
            via=address,
            gives_up=give_up_newer,
            dry_run=dry_run,
            say=click.echo,
        )
        _tell_of_backup(made, dry_run=dry_run)
    elif address is not None:
        _from_mesh(folder, key, address, chosen, parse_settings(settings), dry_run=dry_run)
    if not dry_run:
        click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")


def _opening(recovery_secret: Path | None, passphrase: bool) -> Secret:
    from offgrid.backup.recovery import Secret, read_secret

    try:
        key = read_secret(recovery_secret).key if recovery_secret is not None else b""
    except ValueError as error:
        raise click.BadParameter(f"{recovery_secret} {error}", param_hint="--recovery-secret") from error
    return Secret(key, secret("passphrase").encode() if passphrase else b"")


def _tell_of_backup(made: CameBack, *, dry_run: bool) -> None:
    manifest = made.manifest
    said = "would come back" if dry_run else "restored"
    click.echo(f"{said}: {manifest.node} ({made.node_id}) of mesh {manifest.mesh}")
    click.echo(f"  journal   up to event {manifest.journal_seq}, {counted(sum(manifest.rows.values()), 'row')}")
    click.echo(f"  sessions  {manifest.rows.get('sessions', 0)}, with {counted(made.sessions, 'key')} to read them")


def _from_mesh(
    folder: Path, key: NodeKey, address: str, roles: tuple[str, ...], values: Mapping[str, object], *, dry_run: bool
) -> None:
    from offgrid_node.restoring import restore as bring_back

    made = bring_back(folder, key, address, roles, values, dry_run=dry_run, say=click.echo)
    newest = made.chain.newest
    click.echo(f"{'would come back' if dry_run else 'restored'}: {made.name} ({made.node_id}) of mesh {made.mesh}")
    click.echo(
        f"  journal   up to event {newest.events}, {counted(len(made.chain.heads), 'segment')} "
        f"at {counted(made.hosts, 'host')}"
    )
    for head in made.chain.beyond:
        click.echo(
            f"  lost      segment {head.number}, to event {head.events}: it, or one before it, is not to be had whole"
        )
    if made.silent:
        click.echo(f"  silent    {', '.join(made.silent)}: they may keep newer ones")


@click.command()
@FOLDER
@click.option("--dry-run", is_flag=True, help="Only say what would be done.")
def migrate(folder: Path, dry_run: bool) -> None:
    """Bring the store of an older version into the form that this one needs.

    The node must not run. A backup comes first; broken off, the same command goes on. There is no way back to the older
    version but that backup.
    """
    from offgrid_node.migrating import migrate as migrate_now

    made = migrate_now(folder, dry_run=dry_run, say=click.echo)
    if not made.steps:
        click.echo(f"nothing to do: the store's rows have form {made.before}, the newest that this version knows")
    elif dry_run:
        click.echo(f"form {made.before} would become {made.after}, behind a backup: {'; '.join(made.steps)}")
    else:
        click.echo(f"the store's rows have form {made.after}")
        click.echo(f"next: offgrid-node run --dir {shlex.quote(str(folder))}")
