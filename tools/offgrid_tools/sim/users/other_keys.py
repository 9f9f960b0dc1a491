"""Who gives a node another identity key, or the mesh another root key, while the node stands still; what the commands
write is what `offgrid-node rotate` writes."""

from __future__ import annotations

from collections.abc import Callable

from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import MeshRows
from offgrid_node.protocol.state.tables import JOURNAL, NOTING_KEY
from offgrid_node.rotating import changed_rows
from offgrid_node.rotating_root import changed_root_rows
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.crypto import SimSigner, sim_certificate, sim_check_certificate, sim_verify
from offgrid_tools.sim.engine import MS, SECOND, Engine
from offgrid_tools.sim.monitor import Monitor
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.users.person import Person

COME_US, AGAIN_US, RESTART_US = (2 * SECOND, 18 * SECOND), SECOND, (5 * MS, 1_500 * MS)

Changed = Callable[[Directory, int], MeshRows]
"""The rows that change, at this time of the node's clock."""


class KeyChanger(Person):
    """At one node; `on_changed` is told once it has the change."""

    def __init__(self, engine: Engine, monitor: Monitor, process: Process, on_changed: Callable[[], None]) -> None:
        super().__init__(engine, monitor, process)
        self._on_changed, self._done = on_changed, False

    @property
    def content(self) -> bool:
        return self._done

    def start(self) -> None:
        self._engine.after(self._engine.rng.randint(*COME_US), self._stop)

    def _stop(self) -> None:
        """And it starts again, whether somebody gets to type the command or not."""
        process = self._process
        if process.dead:
            self._done = True
            return
        if process.away:
            self._engine.after(AGAIN_US, self._stop)
            return
        process.crash(refuses=True)
        self._engine.note(f"{self.wants} {process.spec.name}")
        self._change()
        restart_us = self._engine.rng.randint(*RESTART_US)
        self._engine.after(restart_us, lambda: None if process.up else process.start())

    def _change(self) -> None:
        """The disk may refuse, before it has it or behind."""
        directory = Directory.load(self._process.store, sim_verify, sim_check_certificate)
        try:
            self._process.store.commit(Batch(writes=self._rows(directory, self._process.utc_us)))
        except Fault:
            self._engine.after(AGAIN_US, self._stop)
            return
        self._done = True
        self._monitor.met.counts[self.wants] += 1
        self._on_changed()

    def _rows(self, directory: Directory, now_us: int) -> MeshRows:
        raise NotImplementedError


class IdentityOwner(KeyChanger):
    """Gives the node another identity key."""

    wants = "identity keys rotated"

    def _rows(self, directory: Directory, now_us: int) -> MeshRows:
        process = self._process
        number = directory.key_number(process.node_id)
        before, following = (SimSigner(process.spec.name, each) for each in (number, number + 1))
        return changed_rows(process.store, directory, before, following, sim_certificate(following), None, now_us)


class RootOwner(KeyChanger):
    """Gives the mesh another root key, at the node of an admin."""

    wants = "root keys rotated"

    def _rows(self, directory: Directory, now_us: int) -> MeshRows:
        before, following = (SimSigner("root", each) for each in (directory.root.number, directory.root.number + 1))
        return {**changed_root_rows(directory, before, following, now_us), (JOURNAL, NOTING_KEY): None}
