"""Over whom others are reached, as far as a node was told. All of it is forgotten in time."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

from offgrid_transports.relay.frames import HOPS_MAX, hop_of

ROUTES_MAX = 512
ROUTE_MS = 3_600_000.0


class Route(NamedTuple):
    """The hops between, nearest first. `proved`: word came back from there over them."""

    hops: tuple[bytes, ...]
    learnt_ms: float
    cost_ms: int
    proved: bool = False


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
        if name not in self._routes and len(self._routes) >= ROUTES_MAX and not self._make_room(proved=route.proved):
            return
        self._routes[name] = route
        self._routes.move_to_end(name)

    def _make_room(self, *, proved: bool) -> bool:
        """In the place of what was learnt longest ago; what was proved gives way to no hearsay."""
        oldest = next((name for name, route in self._routes.items() if not route.proved), None)
        if oldest is None and not proved:
            return False
        del self._routes[oldest or next(iter(self._routes))]
        return True

    def get(self, now_ms: float, name: bytes) -> Route | None:
        route = self._routes.get(name)
        return route if route is not None and route.learnt_ms + ROUTE_MS > now_ms else None

    def forget(self, name: bytes) -> None:
        self._routes.pop(name, None)

    def forget_way(self, name: bytes, hops: tuple[bytes, ...]) -> None:
        """That one there has broken."""
        route = self._routes.get(name)
        if route is not None and route.hops == hops:
            self.forget(name)

    def distrust(self, name: bytes) -> None:
        """The way there has broken: only that node itself may say the next one."""
        self.forget(name)
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

    def forget_over(self, who: bytes) -> None:
        """None goes by that neighbour any more; `who` is its hop, or its name."""
        for name in [name for name, route in self._routes.items() if route.hops[:1] == (hop_of(who),)]:
            del self._routes[name]
