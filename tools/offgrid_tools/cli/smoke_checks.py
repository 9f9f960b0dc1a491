"""What `offgrid smoke` tries, one after the other: each check gives lines, and takes back what it can."""

from __future__ import annotations

from offgrid_tools.cli.smoke_frame import Check
from offgrid_tools.cli.smoke_jobs import jobs
from offgrid_tools.cli.smoke_kept import events, ledger, objects, session
from offgrid_tools.cli.smoke_mesh import gateway, node, peers, quorum, roads

CHECKS: tuple[tuple[str, Check], ...] = (
    ("node", node), ("peers", peers), ("roads", roads), ("job", jobs), ("object", objects), ("quorum", quorum),
    ("events", events), ("session", session), ("ledger", ledger), ("gateway", gateway),
)  # fmt: skip
