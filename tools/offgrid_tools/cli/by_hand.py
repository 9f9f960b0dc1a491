"""`offgrid tx create`, `sign`, `send` and `finalize`: a transfer in steps, the signature wherever the key is."""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offgrid_tools.cli.amounts import Amount, credits_of, pairs
from offgrid_tools.cli.bars import working
from offgrid_tools.cli.files import TargetFile, opened
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.transfer import exit_code_of, show_transaction, timeout

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

FILE = click.Path(exists=True, dir_okay=False, allow_dash=True)


@click.command()
@click.option(
    "--src",
    metavar="ACCOUNT",
    default="",
    help="The account that pays: a member's name or id, or NODE/LANE. [default: this node's]",
)
@click.option("--dst", metavar="ACCOUNT", required=True, help="Who is paid: a member's name or id, or NODE/LANE.")
@click.option("--amount", "amount_micro", type=Amount(), required=True, help="Credits, at most six places.")
@click.option("--fee", "fee_micro", type=Amount(), help="What it costs besides. [default: the ledger's least]")
@click.option("--meta", "meta", multiple=True, metavar="NAME=VALUE", help="Goes into the transaction; repeat it.")
@click.option(
    "-o", "--output", type=TargetFile(), default="-", help="Write it here; - is standard output. [default: -]"
)
@common
def create(src: str, dst: str, amount_micro: int, fee_micro: int | None, meta: tuple[str, ...], output: str) -> None:
    """Make an unsigned transaction for the account's next slot, as a file. Nothing is kept of it, and nothing moves."""
    about = pairs("--meta", meta)
    client = settings().connect()
    made = client.ledger.create_transaction(dst, amount_micro, src=src, fee_micro=fee_micro or 0, meta=about)
    _write(output, _by_hand().document(made.mesh_id, made.body))


@click.command()
@click.argument("file", type=FILE)
@click.option("--key", "key", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="KEYFILE",
              help="Sign with this key file (DIR/keys/node.key), without any node.")  # fmt: skip
@click.option("-o", "--output", type=TargetFile(), help="Write the signed one here. [default: FILE itself]")
@common
def sign(file: str, key: Path | None, output: str | None) -> None:
    """Sign FILE: by this node, which then signs nothing else in that account until it has ended, or with a key file.

    With --key no node is asked: it is for an account whose node is not running. Look at what you sign: offgrid tx show
    FILE. It is not sent yet; `offgrid tx unlock` ends what this node has signed and you do not want to send.
    """
    by_hand, held = _by_hand(), _read(file)
    if key is not None:
        _check_alone(key)
        try:
            held = by_hand.signed_with(held, key)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
        document = held.document()
    else:
        signed = settings().connect().ledger.sign_transaction(held.body)
        document = by_hand.document(held.mesh_id, signed.signed.body, signed.signed.signature)
    _write(output or file, document)
    if (output or file) != "-" and not settings().json:
        click.echo(f"{held.facts()['tx_id']}: signed, not sent", err=True)


@click.command()
@click.argument("file", type=FILE)
@common
def send(file: str) -> None:
    """Send the signed transaction in FILE on its way, through this node. Sent again it changes nothing.

    An account whose node is up pays through that node alone, which knows what it has signed: send it there.
    """
    held = _read(file)
    if not held.signature:
        raise click.UsageError(f"{file} is not signed: offgrid tx sign {file}")
    client = settings().connect()
    show_transaction(client.ledger.send_transaction(held.body, held.signature), client)


@click.command()
@click.argument("tx", metavar="TX")
@timeout("is final or void")
@common
def finalize(tx: str, wait_s: float) -> int:
    """Wait until TX is final or void, and say which: 0 final, 1 void, 7 neither in time, or this
    node cannot tell. TX is an id, or a file.

    Witnesses finalize it by themselves: this waits, and does nothing else.
    """
    client = settings().connect()
    tx_id = _read(tx).facts()["tx_id"] if os.path.isfile(tx) else tx
    with working("waiting until it is final or void"):
        found = client.ledger.settled(tx_id, wait_s)
    show_transaction(found, client)
    return exit_code_of(found)


def show_file(file: str) -> None:
    """What a transaction's file says."""
    facts_of = _read(file).facts()
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit(facts_of)
        return
    from offgrid_tools.cli.output import facts

    facts(_about(facts_of))


def _about(tx: Mapping[str, Any]) -> Iterator[tuple[str, object]]:
    yield "tx", tx["tx_id"]
    yield "mesh", tx["mesh_id"]
    yield "from", f"{tx['src']}{'/' + str(tx['lane']) if tx['lane'] else ''}, its number {tx['seq']}"
    for output in tx["outputs"]:
        yield "to", f"{output['account']}: {credits_of(output['amount_micro'])}"
    yield "fee", credits_of(tx["fee_micro"])
    for key, value in tx["meta"].items():
        yield f"  {key}", value
    yield "signed", "yes" if tx["signed"] else "no: offgrid tx sign"


def _by_hand() -> Any:
    # What reads and signs it is the node's own code, which this command otherwise knows nothing of: hence no import
    # statement.
    return importlib.import_module("offgrid_tools.by_hand")


def _read(file: str) -> Any:
    with opened(file) as held:
        data = held.read(_by_hand().FILE_BYTES_MAX + 1)
    try:
        return _by_hand().read(data)
    except ValueError as error:
        raise click.UsageError(f"{file}: {error}") from error


def _write(output: str, document: Mapping[str, Any]) -> None:
    import json

    text = json.dumps(document, indent=None if settings().json else 2, ensure_ascii=True)
    if output == "-":
        click.echo(text)
        return
    from offgrid.client.targets import replaced

    with replaced(output) as file:
        file.write(f"{text}\n".encode())


def _check_alone(key: Path) -> None:
    """The node of a folder whose key this is must not be running: it could sign another one in the same slot."""
    from offgrid.client import OffgridError, connect

    folder = key.resolve().parent.parent
    try:
        with connect(str(folder)) as client:
            client.mesh.status()
    except OffgridError:
        return
    raise click.UsageError(
        f"the node in {folder} is running and signs for this account itself: offgrid --node-dir {folder} tx sign"
    )
