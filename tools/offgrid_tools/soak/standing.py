"""A node in this very process, without the rest of a mesh: its own disk, keys, rows, machines and handlers, as the
daemon has them, but no network, and a clock that stands unless it is told to go on. So what it answers is the same each
time.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from google.protobuf.message import Message

from offgrid.reducers import SessionReducer
from offgrid_node.coding import choose
from offgrid_node.folder import Folder, check_store, open_store
from offgrid_node.keys import check_identity_certificate, open_sealed, seal, verify
from offgrid_node.keys.letters import Letters
from offgrid_node.keys.wraps import KeyWraps
from offgrid_node.node import Node
from offgrid_node.node_settings import ROLE_VALUES, object_parts
from offgrid_node.parts import Parts
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_node.protocol.jobs.settings import JobsSettings
from offgrid_node.protocol.mesh.machine import MeshSettings
from offgrid_node.rotating import ring_of
from offgrid_node.runtime import Ticket
from offgrid_node.services.bulk import Bulk, inline
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.stream import Stream
from offgrid_node.session_vault import SessionVault
from offgrid_node.storage.blobs import FileBlobs
from offgrid_node.storage.session_keys import SESSION_KEYS, SessionKeys

BEGAN_US = 1_790_000_000_000_000
LONGEST_MS = 600_000  # of its own time, that an answer may take


class StandingNode:
    """Begun as a process begins; `stop` ends it in order. `findings`: what its start says of the store."""

    def __init__(self, path: Path, began_us: int = BEGAN_US) -> None:
        """Raises Fault: where the daemon would not start either."""
        self._rng = Random(began_us)  # noqa: S311 - what it draws is the same each time
        self.folder, self._now_us, self._timers = Folder(path), began_us, list[tuple[int, int, Callable[[], None]]]()
        self.config = self.folder.config({})
        self.store = open_store(self.config, create=False)
        try:
            self.findings = check_store(self.store)
            self.keys = SessionKeys(self.config.node.data_dir / SESSION_KEYS)
            self.vault = SessionVault(self.keys, self._rng.randbytes)
            self.node = Node(self._parts())
        except BaseException:
            self.store.close()
            raise

    def stop(self) -> None:
        self.store.close()

    def _parts(self) -> Parts:
        config, ring = self.config, ring_of(self.folder, self.store)
        wraps = KeyWraps(ring.key, ring.older)
        coder = choose().coder
        return Parts(
            store=self.store,
            clock=self,
            rng=self._rng,
            signer=ring.key,
            verify=verify,
            check_certificate=check_identity_certificate,
            seal=seal,
            open_sealed=open_sealed,
            letters=Letters(ring.key, self._rng.randbytes, ring.older),
            roads=[],
            execute=lambda work: None,
            stop=lambda work: None,
            on_input=lambda: None,
            facts=lambda: NodeFacts("soak", 0, "", 0.0, "inline"),
            mesh=MeshSettings(
                frozenset(ROLE_VALUES[role] for role in config.node.roles),
                (),
                (),
                "soak",
                config.mesh.probe_interval_ms,
            ),
            jobs=JobsSettings(signer=ring.key, salt=b""),
            objects=object_parts(config, FileBlobs(config.storage.chunk_dir), Bulk(inline), wraps, coder),
            vault=self.vault,
            reducers={"session": SessionReducer()},
            data_dir=config.node.data_dir,
            economy=config.economy.enabled,
            later=self._later,
        )

    # ---- its time

    def now(self) -> Now:
        return Now(self._now_us // 1_000, self._now_us)

    def _later(self, delay_ms: int, callback: Callable[[], None]) -> None:
        self._timers.append((self._now_us // 1_000 + delay_ms, len(self._timers), callback))

    def wait(self, ms: int) -> None:
        """So long, with all that is due meanwhile."""
        end_us = self._now_us + ms * 1_000
        self.node.runtime.turn()
        while self._timers and min(self._timers)[0] * 1_000 <= end_us:
            first = min(self._timers)
            self._timers.remove(first)
            self._now_us = max(self._now_us, first[0] * 1_000)
            first[2]()
            self.node.runtime.turn()
        self._now_us = end_us
        self.node.runtime.wake()
        self.node.runtime.turn()

    # ---- what it is asked

    def ask(self, method: str, request: Message) -> Any:
        """The answer, of a stream all of them. Raises Fault."""
        outcome: Any = self.node.router.dispatch(ADMIN, f"offgrid.v1.{method}", request)
        if isinstance(outcome, Ticket):
            outcome = self._end_of(outcome)
        if isinstance(outcome, Stream):
            return self._all_of(outcome)
        if isinstance(outcome, Fault):
            raise outcome
        return outcome

    def _end_of(self, ticket: Ticket) -> Any:
        self.node.runtime.turn()
        waited_ms = 0
        while ticket.outcome is None:
            waited_ms = self._patient(waited_ms)
        return ticket.outcome

    def _all_of(self, stream: Stream) -> list[Message]:
        found: list[Message] = []
        stream.when_ready(lambda: found.extend(stream.take()))
        self.node.runtime.turn()
        waited_ms = 0
        while not stream.ended:
            waited_ms = self._patient(waited_ms)
        if stream.fault is not None:
            raise stream.fault
        return found

    def _patient(self, waited_ms: int) -> int:
        if waited_ms > LONGEST_MS:
            raise Unavailable("it never answers", reason="NoAnswer")
        self.wait(10)
        return waited_ms + 10
