"""Runs a command of this interpreter with the calls of its node written down: `python -m … OUT python -m MODULE …`.

A `LocalNode.runner`, so that what is recorded is what real nodes say to each other, with real keys.
"""

from __future__ import annotations

import os
import runpy
import sys
from pathlib import Path

from google.protobuf.message import Message

from offgrid_node.protocol.errors import Fault, OutcomeUnknown, Unavailable
from offgrid_node.services.client import Client, Done
from offgrid_node.services.packet_status import fault_to_bytes
from offgrid_tools.wordbook.samples import REQUEST, RESPONSE, Sample, write_sample


def tap(folder: Path) -> None:
    """From now on each call out of this process is appended to a file of its own in `folder`."""
    call = Client.request
    out = (folder / f"{os.getpid()}.samples").open("ab", buffering=0)

    def request_and_tell(self: Client, node: str, method: str, request: Message, timeout_ms: int, done: Done) -> None:
        write_sample(out, Sample(method, REQUEST, request.SerializeToString()))

        def answered(outcome: Message | Fault) -> None:
            if not isinstance(outcome, Unavailable | OutcomeUnknown):  # nobody has said these
                body = fault_to_bytes(outcome) if isinstance(outcome, Fault) else outcome.SerializeToString()
                write_sample(out, Sample(method, RESPONSE, body))
            done(outcome)

        call(self, node, method, request, timeout_ms, answered)

    Client.request = request_and_tell  # type: ignore[method-assign]


def main() -> None:
    folder, _, _, module, *arguments = sys.argv[1:]
    sys.argv = [module, *arguments]
    tap(Path(folder))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
