"""`offgrid mail …`: messages and jobs for members that are away."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from offgrid.command_line import exits
from offgrid.command_line.terminal import counted
from offgrid_tools.cli.files import TargetFile, opened, plain
from offgrid_tools.cli.job_options import options_of, payload_of, program_options, term_options
from offgrid_tools.cli.jobs import MODES, exit_code_of, named, node_names, report
from offgrid_tools.cli.settings import common, settings
from offgrid_tools.cli.times import length_us

if TYPE_CHECKING:
    from offgrid.v1.jobs_pb2 import Job
    from offgrid.v1.mail_pb2 import GetMailResponse, Mail

MESSAGE_BYTES_MAX = 64 * 1024
NODE = click.argument("node", metavar="NODE")
EXPIRES = click.option("--expires", metavar="TIME", help="Give it up after 10m, 2h, 3d… [default: mail.max_days]")


def _expires_s(text: str | None) -> float:
    length = length_us(text) if text is not None else 0
    if length is None:
        raise click.BadParameter(f"{text!r} is no length of time; 10m, 2h and 3d are", param_hint="--expires")
    return length / 1e6


@click.command()
@NODE
@click.option("--text", metavar="TEXT", help="What it says.")
@click.option("--file", "file", type=click.Path(exists=True, dir_okay=False, allow_dash=True),
              help="Or a file; - is standard input. 64 KiB at most.")  # fmt: skip
@click.option(
    "--name", metavar="NAME", default="", help="What the file is called there. [default: as it is called here]"
)
@EXPIRES
@common
def send(node: str, text: str | None, file: str | None, name: str, expires: str | None) -> None:
    """Send a message to the people at NODE, whether it is up or not."""
    if (text is None) == (file is None):
        raise click.UsageError("--text TEXT or --file FILE, one of them, says what is sent")
    if file is None:
        data, name = (text or "").encode("utf-8"), ""
    else:
        with opened(file) as source:
            data = source.read(MESSAGE_BYTES_MAX + 1)
        name = name or ("" if file == "-" else plain(click.format_filename(file, shorten=True)))
    if len(data) > MESSAGE_BYTES_MAX:
        raise click.UsageError(f"more than {MESSAGE_BYTES_MAX} bytes; `offgrid put` and `share` are for what is larger")
    _show_sent(settings().connect().mail.send(node, data, name=name, expires_s=_expires_s(expires)))


@click.command()
@NODE
@click.argument("file", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.argument("args", nargs=-1, type=click.UNPROCESSED)
@program_options
@click.option("--mode", type=MODES, help="As that core is to send it on. [default: as configured there]")
@EXPIRES
@term_options
@common
def job(node: str, file: str, args: tuple[str, ...], mode: str | None, expires: str | None, **said: Any) -> None:
    """Have the core NODE run a program on FILE (- is standard input), whether it is up or not, on its own account.

    It does so for those whom its mail.jobs_from names. `offgrid mail show NUMBER` has the result.
    """
    payload, options = payload_of(file, args, said), options_of(said)
    expires_s = _expires_s(expires)
    _show_sent(settings().connect().mail.send_job(node, payload, mode=mode or "", expires_s=expires_s, **options))


@click.command()
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
def sent(limit: int) -> None:
    """List what this node has sent, the newest first."""
    client = settings().connect()
    found = client.mail.sent(limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"mail": [json_of(mail) for mail in found]})
        return
    from offgrid_tools.cli.output import cut, table, when

    names = node_names(client)
    table(
        ("number", "to", "state", "mailboxes", "about", "sent", "expires"),
        (
            (
                mail.number,
                named(mail.destination, names),
                _state(mail),
                ", ".join(named(node, names) for node in mail.mailboxes),
                cut(mail.subject),
                when(mail.sent_us),
                when(mail.expires_us),
            )
            for mail in found
        ),
        empty="nothing was sent",
    )


@click.command()
@click.argument("number", metavar="NUMBER", type=click.IntRange(1, 2**64 - 1))
@click.option("-o", "--output", type=TargetFile(), help="Write the output of a job here; - is standard output.")
@common
def show(number: int, output: str | None) -> int:
    """Show what came of what this node has sent; of a job, its result."""
    client = settings().connect()
    found = client.mail.get(number)
    if found.HasField("job") and (output is not None or not settings().json):
        if output is not None and found.job.job.result.output_object:
            raise click.UsageError(_too_large(found.job.job))
        report(client, found.job.job, output)
        return exit_code_of(found.job.job)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit(json_of(found))
        return exits.OK
    _facts(found)
    return exits.OK


@click.command()
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
def inbox(limit: int) -> None:
    """List messages that others have sent to this node, the newest first."""
    client = settings().connect()
    found = client.mail.messages(newest_first=True, limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"messages": [json_of(message) for message in found]})
        return
    from offgrid_tools.cli.output import cut, size, table, when

    names = node_names(client)
    table(
        ("message", "from", "state", "file", "size", "received"),
        (
            (
                message.message_id,
                named(message.source, names),
                "read" if message.read else "new",
                cut(message.name),
                size(message.size_bytes),
                when(message.received_us),
            )
            for message in found
        ),
        empty="there are no messages",
    )


@click.command()
@click.argument("message_id", metavar="MESSAGE")
@click.option("-o", "--output", type=TargetFile(), help="Write it here, as it is; - is standard output.")
@common
def read(message_id: str, output: str | None) -> None:
    """Read a message."""
    client = settings().connect()
    found = client.mail.read(message_id)
    if output == "-":
        import sys

        sys.stdout.buffer.write(found.data)
        sys.stdout.flush()
        return
    if output is not None:
        from offgrid.client.targets import replaced

        with replaced(output) as target:
            target.write(found.data)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit(json_of(found))
        return
    from offgrid.command_line.terminal import clean
    from offgrid_tools.cli.output import facts, when

    message = found.message
    facts(
        [
            ("message", message.message_id),
            ("from", named(message.source, node_names(client))),
            ("file", message.name),
            ("received", when(message.received_us)),
        ]
    )
    if output is None:
        click.echo()
        click.echo(clean(found.data.decode("utf-8", "replace"), lines=True))


@click.command()
@click.argument("message_ids", nargs=-1, metavar="MESSAGE...", required=True)
@common
def rm(message_ids: tuple[str, ...]) -> None:
    """Delete messages that this node has received."""
    client = settings().connect()
    for message_id in message_ids:
        client.mail.delete(message_id)
    if settings().json:
        from offgrid_tools.cli.emitting import emit

        emit({"deleted": list(message_ids)})


@click.command()
@click.option("--limit", metavar="COUNT", type=click.IntRange(0), default=0, help="At most so many. [default: all]")
@common
def held(limit: int) -> None:
    """List what this node holds for others until they come by."""
    client = settings().connect()
    box, found = client.mail.mailbox(), client.mail.held(limit=limit or None)
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        parcels = [json_of(parcel) for parcel in found]
        emit({"parcels": parcels, "count": box.count, "used_bytes": box.used_bytes, "limit_bytes": box.limit_bytes})
        return
    from offgrid_tools.cli.output import facts, size, table, when

    names = node_names(client)
    facts([("held", f"{counted(box.count, 'parcel')}, {size(box.used_bytes)} of {size(box.limit_bytes)}")])
    table(
        ("from", "to", "number", "size", "since", "until"),
        (
            (
                named(parcel.source, names),
                named(parcel.destination, names),
                parcel.number,
                size(parcel.size_bytes),
                when(parcel.held_us),
                when(parcel.until_us),
            )
            for parcel in found
        ),
        empty="nothing is held here",
    )


def _show_sent(mail: Mail) -> None:
    if settings().json:
        from offgrid.json_form import json_of
        from offgrid_tools.cli.emitting import emit

        emit({"mail": json_of(mail)})
        return
    from offgrid_tools.cli.output import facts, when

    facts([("number", mail.number), ("state", _state(mail)), ("expires", when(mail.expires_us))])


def _facts(found: GetMailResponse) -> None:
    from offgrid_tools.cli.output import facts, when

    mail, names = found.mail, node_names(settings().connect())
    facts(
        [
            ("number", mail.number),
            ("to", named(mail.destination, names)),
            ("about", mail.subject),
            ("state", _state(mail)),
            ("why", _why(found)),
            ("mailboxes", ", ".join(named(node, names) for node in mail.mailboxes)),
            ("sent", when(mail.sent_us)),
            ("expires", when(mail.expires_us)),
            ("ended", when(mail.ended_us)),
            ("taken as", found.message.message_id),
        ]
    )


def _too_large(job: Job) -> str:
    result = job.result
    where = f"too large for mail, and stays at that core as {result.output_object}"
    return f"its output, {result.output_bytes} bytes, is {where}; its owner may share it with this node"


def _why(found: GetMailResponse) -> str:
    if _state(found.mail) == "expired":
        return "no answer came in time; whether it was carried out is not known"
    return f"{found.reason}: {found.detail}" if found.reason else ""


def _state(mail: Mail) -> str:
    from offgrid.v1.mail_pb2 import MailState
    from offgrid_tools.cli.output import word

    return word(MailState, mail.state)
