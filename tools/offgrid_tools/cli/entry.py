"""`offgrid`'s own part in how a command ends: what an error of a node's says to people, and what to do next."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from offgrid.command_line import endings, exits
from offgrid.command_line.endings import Ending
from offgrid_tools.cli.root import ROOT
from offgrid_tools.cli.settings import Settings

if TYPE_CHECKING:
    from offgrid.client.errors import OffgridError

COMMAND = re.compile(r"`([^`]+)`")
LOOK_FIRST = "it may have been carried out all the same: look before you send it again"


def run(argv: Sequence[str]) -> int:
    """The exit code of `offgrid ARGV`; standard output has been flushed."""
    return endings.run(ROOT, argv, Settings(), explain)


def explain(error: Exception) -> Ending:
    """What an error says to people and to scripts."""
    from offgrid.client.errors import OffgridError

    if isinstance(error, OffgridError):
        return _of_node(error)
    if isinstance(error, OSError):
        return endings.of_system(error)
    if isinstance(error, UnicodeEncodeError) and "surrogates" in error.reason:
        return Ending(exits.USAGE, "the command line has bytes that are not UTF-8 where the node needs text")
    return endings.defect(error)


def _of_node(error: OffgridError) -> Ending:
    in_credits = _in_credits(error)
    violations = [{"field": v.field, "description": v.description} for v in error.violations]
    message = in_credits or error.message
    lines = [f"  {v.field}: {v.description}" for v in error.violations if v.description not in message]
    details = {"code": error.code, "reason": error.reason, "violations": violations, "retry_ms": error.retry_ms}
    code = exits.BY_CODE.get(error.code, exits.INTERNAL)
    hint = _hint(error)
    if any(command in message for command in COMMAND.findall(hint)):  # the node has said so itself
        hint = ""
    return Ending(code, message, hint, [] if in_credits else lines, details)


def _in_credits(error: OffgridError) -> str:
    """The node's sentence with amounts as people write them, where it names amounts apart; else ""."""
    if not any(name.endswith("_micro") for name in error.metadata):
        return ""
    from offgrid_tools.cli.amounts import refusal_in_credits

    return refusal_in_credits(error.reason, error.metadata)


def _hint(error: OffgridError) -> str:
    """What to do next, by the error's reason, else by its code."""
    from offgrid.client.address import NoNode

    if isinstance(error, NoNode) and (folder := error.folder) is not None:
        return f"the node of {folder} does not run: offgrid-node run --dir {shlex.quote(str(folder))}"
    by_reason = {
        "NoNode": "start one (`offgrid-node init --mesh NAME`, then `offgrid-node run`) or say where it is: "
        "--node-dir DIR or --socket PATH",
        "NoContext": "`offgrid context ls` shows which there are",
        "NoAnswer": "is it running? start it with `offgrid-node run`",
        "ConnectionLost": LOOK_FIRST,
        "WatchEnded": "once the node is back, `offgrid job show` and `watch` tell what came of it",
        "NotANode": "--node-dir DIR or --socket PATH say where the node is",
        "Untrusted": "SSL_CERT_FILE=CA.pem before the command names whom to trust, if that is your own authority",
        "SocketDenied": "run this as the user who runs the node",
        "BrokerUnavailable": "`offgrid peers` shows who is alive; --mode auto falls back to this node itself",
        "NoHostsAvailable": "`offgrid market` shows who offers what",
        "LedgerNotOpen": "an admin's node opens it, once: `offgrid ledger open`",
        "EconomyOff": "economy.enabled in offgrid.toml turns it on",
        "InsufficientFunds": "`offgrid balance` shows what there is",
        "RowsDamaged": "all else is sound; of these a backup of the node's folder tells, or what hosts keep of its "
        "journal (docs/operations.md)",
        "NoSuchNode": "`offgrid peers` shows the members",
        "NotAMember": "`offgrid peers` shows the members",
        "JobNotFound": "`offgrid job list` shows which there are",
        "TaskNotFound": "`offgrid task list` shows which there are",
        "MissionNotFound": "`offgrid mission list` shows which there are",
        "ScheduleNotFound": "`offgrid schedule list` shows which there are",
        "QuorumNotFound": "`offgrid quorum list` shows which there are",
        "SessionNotFound": "`offgrid state sessions` shows which there are",
        "TransactionNotFound": "`offgrid tx list` shows which there are",
        "MailNotFound": "`offgrid mail sent` shows which there are",
        "MessageNotFound": "`offgrid mail inbox` shows which there are",
        "ObjectNotFound": "`offgrid ls` shows this node's own, `offgrid ls --shared` what it may read and no more",
    }
    by_code = {
        "DEADLINE_EXCEEDED": LOOK_FIRST,
        "UNIMPLEMENTED": "node and command are of different versions: `offgrid --version`, `offgrid status`",
    }
    return by_reason.get(error.reason) or by_code.get(error.code, "")
