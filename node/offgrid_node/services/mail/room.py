"""The mail domain of one node, put together: its handlers, and what answers requests that came by mail."""

from __future__ import annotations

from collections.abc import Callable

from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.runtime import Runtime
from offgrid_node.services.caller import Caller
from offgrid_node.services.jobs.handlers import JobHandlers
from offgrid_node.services.jobs.results import Letters
from offgrid_node.services.mail.handlers import MailHandlers
from offgrid_node.services.mail.jobs import MailedJobs
from offgrid_node.services.mail.serving import Serving
from offgrid_node.services.router import Router


class MailRoom:
    """What mail needs of a node, and gives it."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        directory: Callable[[], Directory],
        verify: Verifier,
        letters: Letters,
        jobs: JobHandlers,
        jobs_from: tuple[str, ...],
        member: Callable[[str], Caller | None],
        router: Callable[[], Router],
    ) -> None:
        """`jobs_from` are names or ids of members whose jobs this core takes; `router` is asked once there is one."""
        mailed = MailedJobs(runtime, jobs, directory, jobs_from)
        self.handlers = MailHandlers(runtime, self_id, directory, verify, letters, mailed)
        self.serving = Serving(letters, directory, member, router, lambda end: runtime.deliver("mail", end))
