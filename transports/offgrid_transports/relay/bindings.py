"""By which circuit the frames of each of this node's sessions go: by the other end, and this one's number of it."""

from __future__ import annotations

from offgrid_transports.relay.circuits import Circuit


class Bindings:
    """Holds no more than there are circuits."""

    def __init__(self) -> None:
        self._by_end: dict[bytes, dict[int, Circuit]] = {}

    def get(self, name: bytes, ours: int) -> Circuit | None:
        return self._by_end.get(name, {}).get(ours)

    def newest(self, name: bytes) -> Circuit | None:
        """The one that was bound last."""
        bound = self._by_end.get(name)
        return bound[next(reversed(bound))] if bound else None

    def bind(self, name: bytes, ours: int, circuit: Circuit) -> None:
        bound = self._by_end.setdefault(name, {})
        bound.pop(ours, None)
        bound[ours] = circuit

    def release(self, name: bytes, ours: int, circuit: Circuit) -> None:
        """Unless another one has taken its place."""
        bound = self._by_end.get(name, {})
        if bound.get(ours) is circuit:
            del bound[ours]
            if not bound:
                del self._by_end[name]
