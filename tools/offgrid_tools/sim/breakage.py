"""What befalls disks and machines that keep things for others: for good, as the plan has it, or for a while."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from offgrid_node.protocol.events import HOST
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import MS, SECOND
from offgrid_tools.sim.plan import Plan
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.vices import DEAD, FORGETFUL, RESTORED, ROTS, WIPED

BACKUP_US, RESTORE_US = (SECOND, 8 * SECOND), (5 * MS, 1_500 * MS)
ROT_CHANCE, ROT_US = 0.4, (300 * MS, 3 * SECOND)
LOST_US = (SECOND, 12 * SECOND)
FULL_US = (20 * MS, 500 * MS)
FREEZE_US = (200 * MS, 12 * SECOND)
REMOVED_AFTERWARDS_CHANCE = 0.3
SYNCS = 3  # of one blob
WRITES_MAX = 12  # that still come through: those of some pieces, or of a commit with all its fsyncs

Mend = Callable[[Callable[[], object]], None]
Count = Callable[[str, Callable[[], None]], None]


class Breakage:
    """`count` notes what it does, `mend` undoes something some time later unless all was healed before, `over` says
    whether it was."""

    def __init__(self, cluster: Cluster, count: Count, mend: Mend, over: Callable[[], bool]) -> None:
        self._cluster, self._engine, self._rng = cluster, cluster.engine, cluster.engine.rng
        self._count, self._mend, self._over = count, mend, over

    def begin(self, plan: Plan) -> None:
        """Whatever has a vice of its disk, or dies."""
        first = {RESTORED: (BACKUP_US, self._back_up), ROTS: (ROT_US, self._rot)}
        first |= {DEAD: (LOST_US, self._die), WIPED: (LOST_US, self._wipe)}
        for vice, (within_us, misfortune) in first.items():
            for name in plan.having(vice):
                process = self._cluster.processes[name]
                if vice in FORGETFUL:
                    self._cluster.monitor.evidence.rotten.add(process.node_id)
                self._engine.after(self._rng.randint(*within_us), partial(misfortune, process))

    @property
    def misfortunes(self) -> tuple[Callable[[], None], ...]:
        """Those that pass."""
        return self.freeze, self.freeze, self.sync_failure, self.disk_full, self.host_reset, self.power_cut

    # ---- for good

    def _back_up(self, process: Process) -> None:
        """A copy of this disk is put aside, and some time later in its place."""
        rows, kept = process.store.copy(), process.blobs.backup()
        restore = partial(self._replace, process, lambda: process.restore(rows, kept))
        self._engine.after(self._rng.randint(*BACKUP_US), lambda: self._count("restore", restore))

    def _wipe(self, process: Process) -> None:
        """A new disk, with nothing on it but what the mesh began with."""
        replace = partial(self._replace, process, lambda: process.restore(process.born.copy(), {}))
        self._count("wipe", replace)

    def _replace(self, process: Process, replace: Callable[[], None]) -> None:
        if self._over():
            return
        if process.up:
            process.crash(refuses=True)
        replace()
        process.away = True

        def come_back() -> None:
            process.away = False
            process.start()

        self._engine.after(self._rng.randint(*RESTORE_US), come_back)

    def _die(self, process: Process) -> None:
        """And somebody may end its membership for that."""
        self._count("death", lambda: process.die(refuses=self._rng.random() < 0.5))
        if self._rng.random() < REMOVED_AFTERWARDS_CHANCE:
            self._engine.after(self._rng.randint(*LOST_US), lambda: self._cluster.remove(process.spec.name))

    def _rot(self, process: Process) -> None:
        """This disk loses some of what it keeps for others, or the end of it, or flips a bit of it, again and again."""
        self._count("rot", partial(self._spoil, process))
        if not self._over():
            self._engine.after(self._rng.randint(*ROT_US), partial(self._rot, process))

    def _spoil(self, process: Process) -> None:
        rng, blobs = self._rng, process.blobs
        for blob in list(blobs.names()):
            size = blobs.size(blob)
            if rng.random() < ROT_CHANCE and size:
                match rng.randrange(3):
                    case 0:
                        blobs.flip(blob, rng.randrange(size))
                    case 1:
                        blobs.cut(blob, rng.randrange(size))
                    case _:
                        blobs.lose(blob)

    # ---- for a while

    def _host(self) -> Process:
        return self._rng.choice(self._cluster.with_role(HOST))

    def freeze(self) -> None:
        """A host stands still, longer than its peers wait for it or not."""
        host = self._host()
        if host.up and not host.frozen:
            life = host.boots
            host.freeze()
            self._engine.after(self._rng.randint(*FREEZE_US), lambda: host.thaw() if host.boots == life else None)

    def sync_failure(self) -> None:
        """One of the next fsyncs of a blob fails."""
        self._host().blobs.fail_sync(self._rng.randrange(2 * SYNCS))

    def power_cut(self) -> None:
        """The power of an owner or a host fails at one of its next writes."""
        self._rng.choice(list(self._cluster.processes.values())).power.fail_in(self._rng.randrange(WRITES_MAX))

    def disk_full(self) -> None:
        """Something else fills the disk of a host for a while."""
        blobs = self._host().blobs
        blobs.fill(0)
        self._mend(blobs.fill)

    def store_full(self) -> None:
        """Likewise of anybody, whose store then takes nothing more."""
        store = self._rng.choice(list(self._cluster.processes.values())).store
        store.bound(store.size_bytes())
        self._engine.after(self._rng.randint(*FULL_US), store.bound)  # soon: each commit fails meanwhile

    def host_reset(self) -> None:
        """All connections of a host break."""
        self._cluster.network.reset_all(self._host().node_id)
