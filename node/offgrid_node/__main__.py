"""The `offgrid-node` command: what a machine's owner types to make it a node and to run it."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from offgrid.command_line import endings, exits
from offgrid_node.root import ROOT

if TYPE_CHECKING:
    from offgrid.command_line.endings import Ending
    from offgrid_node.protocol.errors import Fault

GC_THRESHOLD = 50_000  # objects; imports make so many that the default would look through all of them again and again


def run(argv: Sequence[str]) -> int:
    """The exit code of `offgrid-node ARGV`; standard output has been flushed."""
    return endings.run(ROOT, argv, endings.Run(), explain)


def main() -> None:
    """The installed command."""
    gc.set_threshold(GC_THRESHOLD)
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its C core writes every failed handshake to the terminal
    sys.exit(run(sys.argv[1:]))


def explain(error: Exception) -> Ending:
    """What an error says to people, and its exit code; a defect of ours shows where it was, too."""
    from offgrid.client.errors import OffgridError
    from offgrid_node.config import ConfigError
    from offgrid_node.protocol.errors import Fault, Internal

    if isinstance(error, ConfigError):
        return endings.Ending(exits.USAGE, "", lines=[str(problem) for problem in error.problems])
    if isinstance(error, Fault) and not isinstance(error, Internal):
        return endings.Ending(_code_of(error), error.message, _hint(error), details={"reason": error.reason})
    if isinstance(error, OffgridError):
        return endings.Ending(exits.BY_CODE.get(error.code, exits.INTERNAL), error.message)
    if isinstance(error, OSError) and error.strerror:
        return endings.of_system(error)._replace(exit_code=exits.REFUSED)
    import traceback

    traceback.print_exception(error)
    return endings.defect(error)


def _hint(fault: Fault) -> str:
    """What to type next, where the sentence does not say it."""
    if fault.reason == "AddressInUse" and "address" in fault.metadata:
        return (
            "`offgrid-node doctor` says who has it; another port of your choice stands in offgrid.toml "
            "(mesh.listen, mesh.door, gateway.listen)"
        )
    return ""


def _code_of(fault: Fault) -> int:
    from offgrid_node.protocol.errors import Exhausted, InvalidRequest, NotFound, OutcomeUnknown, Unavailable

    if isinstance(fault, Unavailable | OutcomeUnknown):
        return exits.REFUSED if fault.reason == "DiskError" else exits.UNAVAILABLE
    codes = {InvalidRequest: exits.USAGE, NotFound: exits.NOT_FOUND, Exhausted: exits.EXHAUSTED}
    return codes.get(type(fault), exits.REFUSED)


if __name__ == "__main__":
    main()
