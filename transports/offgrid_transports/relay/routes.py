"""Whom a node hears itself, and over whom others are reached, as far as it was told. All of it is forgotten in time."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from offgrid_transports.path import Path
from offgrid_transports.relay.frames import HOPS_MAX, hop_of

NEIGHBOURS_MAX = 256
PATHS_MAX = 4  # of one neighbour
NEIGHBOUR_MS = 1_800_000.0
ROUTES_MAX = 512
ROUTE_MS = 3_600_000.0


class Route(NamedTuple):
    """The hops between, nearest first. `proved`: word came back from there over them."""

    hops: tuple[bytes, ...]
    learnt_ms: float
    cost_ms: int
    proved: bool = False


class Neighbours:
    """By hop: where it was heard, and when."""

    def __init__(self) -> None:
        self._heard: OrderedDict[bytes, dict[Path, float]] = OrderedDict()
        self._names: dict[bytes, bytes] = {}  # whole ones, of those that have said theirs

    def __len__(self) -> int:
        return len(self._heard)

    def on_heard(self, now_ms: float, hop: bytes, path: Path, name: bytes | None = None) -> None:
        paths = self._heard.setdefault(hop, {})
        self._heard.move_to_end(hop)
        paths.pop(path, None)
        paths[path] = now_ms
        if len(paths) > PATHS_MAX:
            del paths[next(iter(paths))]
        if name is not None:
            self._names[hop] = name
        if len(self._heard) > NEIGHBOURS_MAX:
            self._names.pop(self._heard.popitem(last=False)[0], None)

    def path(self, now_ms: float, hop: bytes) -> Path | None:
        """The quickest of those where it was heard lately, on links that are up."""
        paths = [
            path
            for path, heard_ms in self._heard.get(hop, {}).items()
            if heard_ms + NEIGHBOUR_MS > now_ms and path.transport.up
        ]
        return min(paths, key=lambda path: path.transport.airtime_ms(min(100, path.frame_bytes)), default=None)

    def lost(self, hop: bytes, path: Path) -> None:
        """Nobody answers there any more."""
        paths = self._heard.get(hop, {})
        paths.pop(path, None)
        if not paths:
            self._heard.pop(hop, None)
            self._names.pop(hop, None)

    def is_near(self, now_ms: float, name: bytes) -> bool:
        """That very node was heard."""
        return self._names.get(hop_of(name)) == name and self.path(now_ms, hop_of(name)) is not None


class Routes:
    """By name: one that was proved, else the cheapest that was heard of; not found broken since."""

    def __init__(self) -> None:
        self._routes: OrderedDict[bytes, Route] = OrderedDict()
        self._distrusted: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._routes)

    def learn(self, now_ms: float, name: bytes, hops: tuple[bytes, ...], cost_ms: int) -> None:
        """Somebody says so."""
        known = self.get(now_ms, name)
        if len(hops) > HOPS_MAX:
            return
        if known is None or (not known.proved and (cost_ms, len(hops)) <= (known.cost_ms, len(known.hops))):
            self._keep(name, Route(hops, now_ms, cost_ms))

    def prove(self, now_ms: float, name: bytes, hops: tuple[bytes, ...], cost_ms: int) -> None:
        """It was seen: what anybody says counts less, until it breaks or is old."""
        known = self.get(now_ms, name)
        if known is None or not known.proved:
            self._keep(name, Route(hops, now_ms, cost_ms, proved=True))

    def _keep(self, name: bytes, route: Route) -> None:
        self._routes[name] = route
        self._routes.move_to_end(name)
        if len(self._routes) > ROUTES_MAX:
            self._routes.popitem(last=False)

    def get(self, now_ms: float, name: bytes) -> Route | None:
        route = self._routes.get(name)
        return route if route is not None and route.learnt_ms + ROUTE_MS > now_ms else None

    def distrust(self, name: bytes) -> None:
        """The way there has broken: only that node itself may say the next one."""
        self._routes.pop(name, None)
        self._distrusted[name] = None
        self._distrusted.move_to_end(name)
        if len(self._distrusted) > ROUTES_MAX:
            self._distrusted.popitem(last=False)

    def is_distrusted(self, name: bytes) -> bool:
        return name in self._distrusted

    def trust(self, name: bytes) -> None:
        """It was found, or nobody is asked for it any more."""
        self._distrusted.pop(name, None)

    def forget_told(self, hops: frozenset[bytes]) -> None:
        """Those over any of them that nobody has proved."""
        for name, route in list(self._routes.items()):
            if not route.proved and not hops.isdisjoint(route.hops or (hop_of(name),)):
                del self._routes[name]

    def forget_over(self, hop: bytes) -> None:
        """None goes by that neighbour any more."""
        for name in [name for name, route in self._routes.items() if route.hops[:1] == (hop,)]:
            del self._routes[name]
