"""What a simulated node's config file would say."""

from __future__ import annotations

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.jobs.settings import Rule
from offgrid_node.protocol.mail.settings import DAY_US, MAILBOX_MB, MAX_DAYS
from offgrid_node.services.retention import Budget


class Spec(msgspec.Struct, frozen=True):
    """One machine's."""

    name: str
    roles: frozenset[int]
    slots: int
    price_micro: int
    executors: tuple[str, ...] = ("wasm", "process:tool")
    mode: jobs_pb2.DispatchMode.ValueType = jobs_pb2.DISPATCH_MODE_AUTO
    economy: bool = True
    rules: tuple[Rule, ...] = ()
    domain: str = ""  # what it fails together with
    drop: str = ""  # which jobs of its local queue lie in its drop folder
    journal_milli: int = 0  # its journal is brought to hosts, and bears the loss of what weighs less
    budget: Budget | None = None  # what it may keep; None: nothing is dropped
    mailbox_bytes: int = MAILBOX_MB * 1024 * 1024  # what it holds for others
    mail_keep_us: int = MAX_DAYS * DAY_US  # and for how long
    mail_jobs_from: tuple[str, ...] = ()  # whose jobs it takes by mail
    window_s: int = 0  # so many seconds of what happened are summarised together; 0: none are
