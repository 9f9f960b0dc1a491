"""`offgrid state recovery-key`, and what other commands ask for to seal and to open."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid.command_line.asking import secret
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from offgrid.backup.recovery import Recipient, Secret


@click.command("recovery-key")
@click.argument("file", type=click.Path(path_type=Path))
@common
def recovery_key(file: Path) -> None:
    """Make a recovery key: its secret goes into FILE, which is not there yet; the key itself is shown.

    Keep FILE away from the node, where no fire or thief finds both. The key stands in the node's settings:
    state.recovery_key = "ogr-…". Then the keys of sessions lie beside the backups, sealed for it, and
    `offgrid state backup --encrypt` seals a backup for it.
    """
    from offgrid.backup.recovery import make_secret, public_text

    try:
        public_key = make_secret(file)
    except FileExistsError as error:
        raise click.BadParameter(f"{file} is there already, and is never overwritten", param_hint="FILE") from error
    except OSError as error:
        raise click.BadParameter(f"{file}: {error.strerror}", param_hint="FILE") from error
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"recovery_key": public_text(public_key), "secret_file": str(file)})
        return
    click.echo(public_text(public_key))
    click.echo(f"its secret is in {file}: keep it away from the node; nobody can make it again", err=True)


def asked_recipient(public_key: str | None, *, passphrase: bool) -> Recipient | None:
    """For whom something is to be sealed, as the command line says it."""
    if public_key is not None:
        from offgrid.backup.recovery import Recipient, public_from

        try:
            return Recipient(public_from(public_key))
        except ValueError as error:
            raise click.BadParameter(f"{public_key!r} {error}", param_hint="--for") from error
    if not passphrase:
        return None
    from offgrid.backup.recovery import for_passphrase

    return for_passphrase(secret("passphrase", twice=True).encode())


def asked_secret(file: Path | None, *, passphrase: bool) -> Secret:
    """What opens, as the command line says it; it may be nothing."""
    from offgrid.backup.recovery import Secret, read_secret

    key = b""
    if file is not None:
        try:
            key = read_secret(file).key
        except ValueError as error:
            raise click.BadParameter(f"{file} {error}", param_hint="--recovery-secret") from error
    return Secret(key, secret("passphrase").encode() if passphrase else b"")
