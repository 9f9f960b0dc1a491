"""All that a node has for what it remembers, put together."""

from __future__ import annotations

from offgrid_node.runtime import Runtime
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Later
from offgrid_node.services.memory.compacting import Compacting
from offgrid_node.services.memory.handlers import MemoryHandlers
from offgrid_node.services.memory.joining import Joining
from offgrid_node.services.sessions.handlers import SessionHandlers
from offgrid_node.services.sessions.vault import Vault


class MemoryRoom:
    """`compacting` is to be started."""

    def __init__(
        self, runtime: Runtime, vault: Vault, sessions: SessionHandlers, bulk: Bulk, later: Later, interval_ms: int
    ) -> None:
        self.compacting = Compacting(runtime, vault, sessions.keys_of, bulk, later, interval_ms)
        self.joining = Joining(runtime, vault, bulk)
        self.handlers = MemoryHandlers(runtime, vault, sessions, bulk)

    @property
    def notices(self) -> tuple[str, ...]:
        return (self.compacting.trouble,) if self.compacting.trouble else ()
