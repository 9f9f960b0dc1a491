"""`offgrid state backup`, `backups`, `verify-backup` and `compact`: the node's store as a file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offgrid.command_line import exits
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from offgrid.backup.container import Manifest
    from offgrid.v1.state_pb2 import Backup

DAMAGED_SHOWN = 10


@click.command()
@click.argument("file", type=click.Path(path_type=Path), required=False)
@click.option("--encrypt", is_flag=True, help="Seal it for the recovery key of the settings (state.recovery_key).")
@click.option("--for", "public_key", metavar="KEY", help="Seal it for that recovery key: ogr-…")
@click.option("--passphrase", is_flag=True, help="Seal it by a passphrase, which is asked for.")
@common
def backup(file: Path | None, encrypt: bool, public_key: str | None, passphrase: bool) -> int:
    """Write the node's store into FILE, while it serves; into a folder, under a name of its own.

    FILE is on the node's machine, and is never overwritten; without it, it lies beside those that the node makes by
    itself. It has all rows and events, but no keys: neither the node's own nor those of sessions.
    """
    if encrypt + (public_key is not None) + passphrase > 1:
        raise click.UsageError("one of --encrypt, --for and --passphrase is enough")
    from offgrid_tools.cli.recovery import asked_recipient

    recipient = asked_recipient(public_key, passphrase=passphrase)
    path = file.absolute() if file is not None else None
    told = settings().connect().backups.create(path, recipient=recipient, encrypt=encrypt)
    last = _followed("writing the backup", told)
    made: Backup = last.backup
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"backup": json_of(made)})
    else:
        from offgrid.command_line.terminal import clean
        from offgrid_tools.cli.output import say, size

        sealed = ", sealed" if made.sealed else ""
        say(f"{clean(made.path)}: {size(made.bytes)}, up to event {made.journal_seq}{sealed}")
        for each in made.damaged[:DAMAGED_SHOWN]:
            click.echo(f"not in it, since it is damaged in the store: {clean(each)}", err=True)
        if made.damaged_total > DAMAGED_SHOWN:
            click.echo(f"and {made.damaged_total - DAMAGED_SHOWN} more", err=True)
    return exits.FAILED if made.damaged_total else exits.OK


@click.command()
@common
def backups() -> None:
    """List the backups that the node makes by itself, the newest first."""
    told = settings().connect().backups.list()
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit(json_of(told))
        return
    from offgrid_tools.cli.output import size, table, when

    table(
        ("backup", "made", "events", "size", "state"),
        ((each.path, when(each.made_us), each.journal_seq, size(each.bytes), _state_of(each)) for each in told.backups),
        empty=f"there are no backups in {told.folder}",
    )
    click.echo(
        f"store: {size(told.store_bytes)}, of which {size(told.store_used_bytes)} are used; at most "
        f"{size(told.store_limit_bytes)}"
    )


@click.command("verify-backup")
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--recovery-secret",
    "secret",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The recovery key's file.",
)
@click.option("--passphrase", is_flag=True, help="It is sealed by a passphrase, which is asked for.")
@common
def verify_backup(file: Path, secret: Path | None, passphrase: bool) -> int:
    """Check every byte of a backup; no node is needed.

    Ends with 1 where it is damaged; nothing of such a one is ever put back.
    """
    from offgrid.backup import BackupError
    from offgrid.backup.container import BackupReader
    from offgrid_tools.cli.bars import bar
    from offgrid_tools.cli.recovery import asked_secret

    opens = asked_secret(secret, passphrase=passphrase)
    try:
        with bar("checking") as advance, BackupReader.open(file, secret=opens) as reader:
            _show(reader.check(advance))
    except BackupError as error:
        if settings().json:
            from offgrid_tools.cli.emitting import emit

            emit({"whole": False, "trouble": str(error)})
        else:
            click.echo(f"{file}: {error}", err=True)
        return exits.FAILED
    return exits.OK


@click.command()
@common
def compact() -> None:
    """Make the store's file as small as what is in it, while the node serves; it does so by itself now and then."""
    last = _followed("compacting", settings().connect().backups.compact())
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"before_bytes": last.before_bytes, "after_bytes": last.after_bytes})
        return
    from offgrid_tools.cli.output import size

    click.echo(f"{size(last.after_bytes)}; {size(last.before_bytes)} before")


@click.command()
@click.option("--dry-run", is_flag=True, help="Only say so; nothing else is ever done while the node runs.")
@common
def migrate(dry_run: bool) -> None:
    """Say whether the node's store is of an older version.

    A node does not run on one that is: `offgrid-node migrate` brings it into the form that is needed, with a backup
    first, while the node stands still.
    """
    told = settings().connect().backups.list()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"store_form": told.store_form, "newest_form": told.newest_form})
        return
    click.echo(f"nothing to do: the store's rows have form {told.store_form}, the newest that this node knows")


def _followed(doing: str, told: Iterable[Any]) -> Any:
    """The last message; how far it is meanwhile."""
    from offgrid_tools.cli.bars import bar

    last: Any = None
    with bar(doing) as advance:
        for last in told:
            if not last.done:
                advance(last.done_bytes, last.total_bytes)
    return last


def _state_of(each: Backup) -> str:
    said = "sealed" if each.sealed else "in clear"
    return f"{said}; some rows are damaged" if each.damaged_total else said


def _show(manifest: Manifest) -> None:
    if settings().json:
        from dataclasses import asdict

        from offgrid_tools.cli.emitting import emit

        emit({"whole": True, "manifest": {key: value for key, value in asdict(manifest).items() if key != "members"}})
        return
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import facts, when

    facts(
        [
            ("node", f"{clean(manifest.node)} ({clean(manifest.node_id)})"),
            ("mesh", clean(manifest.mesh)),
            ("made", f"{when(manifest.made_us)}, by offgrid {clean(manifest.made_by)}"),
            ("rows", str(sum(manifest.rows.values()))),
            ("events", str(manifest.journal_seq)),
            ("sessions", str(manifest.rows.get("sessions", 0))),
            ("lacks", ", ".join(map(clean, manifest.damaged[:DAMAGED_SHOWN]))),
        ]
    )
    click.echo("it is whole")
