"""`offgrid state restore`: sessions of a backup, brought into the node that runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from offgrid.command_line import exits
from offgrid_tools.cli.settings import common, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from offgrid.backup.recovery import Secret
    from offgrid.client.restoring import Told

SAID = {
    "restored": "restored",
    "here": "here already",
    "purged": "purged: it stays so",
    "keyless": "its key is not in the file of wrapped keys",
    "empty": "nothing of it is kept",
}
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.argument("file", type=FILE)
@click.option("--recovery-secret", type=FILE, help="Opens the keys of sessions, and a sealed backup.")
@click.option("--passphrase", is_flag=True, help="The backup is sealed by a passphrase, which is asked for.")
@click.option("--wrapped-keys", type=FILE, help="The keys of its sessions. [default: keys.wrapped beside FILE]")
@click.option("--session", "only", multiple=True, metavar="SESSION", help="That session alone; repeat it for more.")
@click.option("--dry-run", is_flag=True, help="Only say what would become of which.")
@common
def restore(
    file: Path,
    recovery_secret: Path | None,
    passphrase: bool,
    wrapped_keys: Path | None,
    only: tuple[str, ...],
    dry_run: bool,
) -> int:
    """Bring those sessions of the backup FILE into the node that it does not have.

    Each comes in whole or not at all, as a session of the node's own that says where it comes from, with the kinds that
    it needs; what the node has shredded stays so. Cut off, the same command goes on with it. A whole node comes back by
    `offgrid-node restore --backup FILE`.
    """
    from offgrid.backup import BackupError
    from offgrid.backup.container import BackupReader
    from offgrid.client.restoring import restore_sessions
    from offgrid_tools.cli.bars import bar
    from offgrid_tools.cli.recovery import asked_secret

    secret, client = asked_secret(recovery_secret, passphrase=passphrase), settings().connect()
    told: list[Told] = []
    try:
        keys = _keys(file, wrapped_keys, secret)
        with BackupReader.open(file, secret=secret) as reader:
            with bar("checking") as advance:
                reader.check(advance)
            for each in restore_sessions(client.sessions, reader, keys, only=only, dry_run=dry_run):
                told.append(each)
                _say(each, dry_run=dry_run)
    except BackupError as error:
        raise click.BadParameter(f"{file}: {error}", param_hint="FILE") from error
    missing = {*only}.difference(*((each.session.session_id, each.session.name) for each in told))
    if missing:
        text = f"{', '.join(sorted(missing))}: not in {file}; --dry-run without it names those that are"
        raise click.BadParameter(text, param_hint="--session")
    if not told and not settings().json:
        click.echo("there are no sessions in it")
    return exits.FAILED if any(each.outcome in ("keyless", "refused") for each in told) else exits.OK


def _keys(file: Path, wrapped: Path | None, secret: Secret) -> Mapping[str, bytes]:
    """None where there is no such file, or no secret of the recovery key's."""
    from offgrid.backup.wrapped import WRAPPED_KEYS, unwrap_keys

    place = wrapped or file.with_name(WRAPPED_KEYS)
    if wrapped is None and not (secret.key and place.exists()):
        return {}
    return unwrap_keys(place.read_bytes(), secret)


def _say(told: Told, *, dry_run: bool) -> None:
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        session_id = told.session.session_id
        emit({"session_id": session_id, "outcome": told.outcome, "made": told.made, "why": told.why})
        return
    from offgrid.command_line.terminal import clean

    said = SAID.get(told.outcome, told.why)
    if told.outcome == "restored":
        said = "would be restored" if dry_run else f"restored, as {told.made}"
    click.echo(f"{told.session.session_id}  {clean(told.session.name)}: {clean(said)}")
