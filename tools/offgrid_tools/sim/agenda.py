"""What one life of a process has in store for itself: it comes to nothing with that life, and waits while the process
is frozen."""

from __future__ import annotations

from collections.abc import Callable

from offgrid_tools.sim.engine import Engine
from offgrid_tools.sim.power import PowerCut

Step = Callable[[], None]


class Agenda:
    """Begins with a life and ends with it."""

    def __init__(self, engine: Engine, on_cut: Step) -> None:
        """`on_cut`: the power fails amid a step."""
        self._engine, self._on_cut = engine, on_cut
        self._waiting: list[Step] | None = None  # until it is thawed
        self._over = False

    @property
    def frozen(self) -> bool:
        return self._waiting is not None

    def later(self, delay_us: int, step: Step) -> None:
        mine = self._mine(step)

        def due() -> None:
            if self._waiting is None:
                mine()
            else:
                self._waiting.append(mine)

        self._engine.after(delay_us, due)

    def when_thawed(self, step: Step) -> None:
        """Of a frozen one: does it then, should this life last."""
        assert self._waiting is not None, "only who halts goes on"
        self._waiting.append(self._mine(step))

    def freeze(self) -> None:
        self._waiting = []

    def thaw(self) -> None:
        waiting, self._waiting = self._waiting or [], None
        for step in waiting:
            self._engine.after(0, step)

    def end(self) -> None:
        self._over, self._waiting = True, None

    def _mine(self, step: Step) -> Step:
        """The step, in this life only."""

        def mine() -> None:
            if not self._over:
                try:
                    step()
                except PowerCut:
                    self._on_cut()

        return mine
