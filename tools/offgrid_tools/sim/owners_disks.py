"""What befalls the disks of owners of objects who have their journal cut: one is lost, and its node comes back from
what hosts keep; or an older copy is put in its place, until hosts show that it is old, and somebody accepts that.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.lives import TOKEN_BYTES, Life
from offgrid_node.protocol.state.fence import LIVES_APART, life_after
from offgrid_node.protocol.state.tables import JOURNAL, NEWER_KEY, Newer
from offgrid_node.restoring import behind
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch
from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.comeback import Comeback
from offgrid_tools.sim.engine import MS, SECOND
from offgrid_tools.sim.process import Process
from offgrid_tools.sim.vault import LOST, Vault

STRUCK_US, BACKUP_US = (2 * SECOND, 9 * SECOND), (SECOND, 8 * SECOND)
AGAIN_US, RESTART_US = 500 * MS, (5 * MS, 3_000 * MS)

Count = Callable[[str, Callable[[], None]], None]


class OwnersDisks:
    """`count` notes what it does; `over` says whether all was healed: then nothing more is struck."""

    def __init__(self, cluster: Cluster, count: Count, over: Callable[[], bool]) -> None:
        self._cluster, self._engine, self._rng = cluster, cluster.engine, cluster.engine.rng
        self._count, self._over = count, over

    def begin(self, vault: Vault) -> None:
        for name, how in vault.struck.items():
            process = self._cluster.processes[name]
            process.on_outdated = partial(self._count, "old store", partial(self._accept, process))
            strike = self._lose if how == LOST else self._back_up
            self._engine.after(self._rng.randint(*STRUCK_US), partial(strike, process))

    # ---- a disk is lost

    def _lose(self, process: Process) -> None:
        """As soon as its node can say up to where it would come back."""
        if self._over():
            return
        safe_seq = process.running.journal_safe_seq if process.up and process.running.runtime.machines else 0
        if not safe_seq:
            self._engine.after(AGAIN_US, partial(self._lose, process))
            return
        self._count("lost disk", partial(self._down, process))
        self._try(process, safe_seq)

    def _down(self, process: Process) -> None:
        process.crash(refuses=True)
        process.away = True

    def _try(self, process: Process, safe_seq: int) -> None:
        others = [each for each in self._cluster.processes.values() if each is not process and not each.dead]
        gone = [each.node_id for each in self._cluster.processes.values() if each.dead]
        comeback = Comeback(self._cluster.network, process.signer, self._rng)
        comeback.run(self._rng.choice(others).node_id, gone, partial(self._on_end, process, safe_seq))

    def _on_end(self, process: Process, safe_seq: int, end: MemoryStore | Fault) -> None:
        if isinstance(end, Fault):
            self._engine.note(f"no comeback of {process.spec.name} yet: {end.message}")
            self._engine.after(AGAIN_US, partial(self._try, process, safe_seq))
            return
        self._cluster.monitor.met.counts["owners that came back without a disk"] += 1
        process.come_back(end, {}, safe_seq)
        self._up(process)

    def _up(self, process: Process) -> None:
        process.away = False
        process.start()

    # ---- an older copy

    def _back_up(self, process: Process) -> None:
        rows, kept = process.store.copy(), process.blobs.backup()

        def put_back() -> None:
            self._down(process)
            self._cluster.monitor.evidence.dishonest.add(process.node_id)  # until it knows that it has forgotten
            process.come_back(rows, kept, rows.journal_seq)
            self._engine.after(self._rng.randint(*RESTART_US), partial(self._up, process))

        again = partial(self._count, "old copy", put_back)
        self._engine.after(self._rng.randint(*BACKUP_US), lambda: None if self._over() else again())

    def _accept(self, process: Process) -> None:
        """It has stopped, and its owner gives up what came after."""
        self._down(process)
        self._engine.after(self._rng.randint(*RESTART_US), partial(self._go_on, process))

    def _go_on(self, process: Process) -> None:
        row = process.store.get(JOURNAL, NEWER_KEY)
        if row is not None:  # else it had not come to the disk yet: the next start is shown it again
            newer, node = Newer.decode(row), process.node_id
            number = life_after(newer.life, self._rng.randrange(LIVES_APART), 0)
            life = Life(node, number, newer.number, self._rng.randbytes(TOKEN_BYTES))
            process.store.commit(Batch(writes=dict(behind(process.store, life))))
            self._cluster.monitor.evidence.dishonest.discard(node)
            self._cluster.monitor.met.counts["old stores accepted"] += 1
        self._up(process)
