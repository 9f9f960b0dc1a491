"""The commands of `offgrid-node` for the offline install kit: `bundle`, `bundle serve`, `bundle check`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from offgrid.command_line import exits
from offgrid.command_line.groups import Group
from offgrid.command_line.terminal import counted
from offgrid.command_line.working import working
from offgrid_node.kit.finding import MADE
from offgrid_node.kit.targets import EXTRAS, PLATFORMS, PYTHONS, targets

WANTED = ("linux-x86_64", "linux-aarch64", "windows-x86_64")  # unless said otherwise
KIT = click.argument("kit", type=click.Path(path_type=Path, file_okay=False), required=False)


@click.group(cls=Group, invoke_without_command=True)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(MADE),
    show_default=True,
    help="A new folder, for instance on a stick.",
)
@click.option(
    "--platform",
    "platforms",
    multiple=True,
    type=click.Choice([*PLATFORMS, "all"]),
    help=f"May be repeated; {', '.join(WANTED)} unless given.",
)
@click.option(
    "--python",
    "pythons",
    multiple=True,
    type=click.Choice(PYTHONS),
    help=f"May be repeated; {', '.join(PYTHONS)} unless given.",
)
@click.option(
    "--extra",
    "extras",
    multiple=True,
    type=click.Choice(EXTRAS),
    help="May be repeated; what the config in this folder uses, if there is one, unless given.",
)
@click.pass_context
def bundle(
    context: click.Context,
    folder: Path,
    platforms: tuple[str, ...],
    pythons: tuple[str, ...],
    extras: tuple[str, ...],
) -> None:
    """Make an install kit, from which machines without an internet become nodes.

    \b
    Where there is an index:     offgrid-node bundle --to /media/stick/offgrid-kit
    On the next machine:         python3 /media/stick/offgrid-kit/install.py
    Or over the network, here:   offgrid-node bundle serve offgrid-kit

    A node that was installed from a kit hands on that very kit, and needs no index.
    """
    if context.invoked_subcommand is not None:
        return
    from offgrid_node.kit.finding import kit_at_hand
    from offgrid_node.kit.making import check_covers, copy_kit, make_kit

    names = tuple(PLATFORMS) if "all" in platforms else platforms
    kit = kit_at_hand()
    if kit is not None:
        check_covers(kit, [target.name for target in targets(names, pythons or PYTHONS)], extras)
        with working("copying the kit"):
            copy_kit(kit, folder)
    else:
        with working("fetching wheels") as say:
            make_kit(folder, targets(names or WANTED, pythons or PYTHONS), say, sorted({*extras}) or _used_here())
    _tell(folder)
    click.echo(f"next, on another machine: python3 {folder.name}/install.py")
    click.echo(f"or over the network, here: offgrid-node bundle serve {shlex.quote(str(folder))}")


@bundle.command()
@KIT
@click.option(
    "--listen",
    default="0.0.0.0:8090",
    show_default=True,
    metavar="HOST:PORT",
    help="Where other machines reach it.",
)
def serve(kit: Path | None, listen: str) -> None:
    """Hand KIT to other machines until Ctrl-C; the one that this node was installed from unless given."""
    from offgrid_node.config.addresses import BadAddress, split_address
    from offgrid_node.discovery.addresses import advertised, join_address
    from offgrid_node.kit.manifest import INSTALLER, complete_targets, read_manifest, sha256_of
    from offgrid_node.kit.serving import KitServer
    from offgrid_node.kit.typed import install_lines

    kit = _kit(kit)
    try:
        host, port = split_address(listen, port_min=0)
    except BadAddress as error:
        raise click.BadParameter(str(error), param_hint="--listen") from error
    click.echo(f"reading every byte of {kit} …", err=True)
    with KitServer(kit, host, port) as server:
        _tell(kit)
        click.echo("on the other machine, one of these lines, as it stands here: it trusts no network")
        digest, whole = sha256_of(kit / INSTALLER), complete_targets(kit, read_manifest(kit))
        for place in advertised(join_address(host, int(server.server_address[1]))):
            for line in install_lines(f"http://{place}", digest, whole):
                click.echo(f"    {line}")
        server.serve_forever()


@bundle.command()
@KIT
def check(kit: Path | None) -> int:
    """Read every byte of KIT and say what is damaged, and for which machines it is whole."""
    from offgrid_node.kit.manifest import damaged, read_manifest

    kit = _kit(kit)
    with working("reading every byte"):
        wrong = damaged(kit, read_manifest(kit))
    for name in wrong:
        click.echo(f"{kit}: {name} is not what the kit says it is", err=True)
    _tell(kit, wrong)
    return exits.REFUSED if wrong else exits.OK


@bundle.command()
@KIT
@click.option(
    "--platform", default="linux-x86_64", show_default=True, type=click.Choice(["linux-x86_64", "linux-aarch64"])
)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, dir_okay=False), help="A new .deb file.")
def deb(kit: Path | None, platform: str, output: Path) -> None:
    """Make a Debian package of KIT, the one that this node was installed from unless given, for all accounts."""
    from offgrid_node.kit.debian import write_deb

    with working("packing"):
        write_deb(_kit(kit), platform, output)
    click.echo(
        f"{output}, {output.stat().st_size / 1e6:.0f} MB; on a Debian or Ubuntu: sudo apt install ./{output.name}"
    )


def _kit(given: Path | None) -> Path:
    from offgrid_node.kit.finding import kit_at_hand

    found = given or kit_at_hand()
    if found is None:
        raise click.UsageError(
            "this node was not installed from a kit; name one, or make one with `offgrid-node bundle`"
        )
    return found


def _used_here() -> tuple[str, ...]:
    """The extras that a node in this folder uses."""
    from offgrid_node.folder import Folder
    from offgrid_node.kit.extras import extras_of

    here = Folder(Path())
    return extras_of(here.config()) if here.config_path.exists() else ()


def _tell(kit: Path, wrong: Sequence[str] = ()) -> None:
    """What it is: version, for whom, how large, and the digest by which others know it. `wrong` are damaged files."""
    from offgrid_node.kit.manifest import INSTALLER, complete_targets, lacking, read_manifest, sha256_of

    manifest = read_manifest(kit)
    missing = lacking(kit, manifest)
    here = [wheel.bytes for name, wheel in manifest.files.items() if name not in missing]
    whole = complete_targets(kit, manifest, wrong)
    extras = f" with {', '.join(manifest.extras)}" if manifest.extras else ""
    much = f"{counted(len(here), 'wheel')}, {sum(here) / 1e6:.0f} MB"
    click.echo(f"kit of offgrid-node {manifest.version}{extras} in {kit}: {much}")
    why = "files were changed; get the kit anew from who made it" if wrong else "files are missing"
    click.echo(f"  for     {', '.join(whole) or f'no machine: {why}'}")
    if whole and (other := [name for name in manifest.targets if name not in whole]):
        why = "files are wrong or missing" if wrong else "those files were not fetched (install.py --whole)"
        click.echo(f"  not for {', '.join(other)}: {why}")
    click.echo(f"  sha256  {sha256_of(kit / INSTALLER)}  install.py")
