"""Who is near whom in the mail's mesh: one writer and the boxes, turn by turn, until nobody waits for anything."""

from __future__ import annotations

from collections.abc import Callable

from offgrid_tools.sim.cluster import Cluster
from offgrid_tools.sim.engine import SECOND
from offgrid_tools.sim.post import Post

TURN_US = (12 * SECOND, 18 * SECOND)
AWAY_CHANCE = 0.2  # that a box is nowhere near in a turn, where there are others


class Turns:
    """Puts the nodes into places (`Network.places`), whatever else befalls them."""

    def __init__(self, cluster: Cluster, post: Post, over: Callable[[], bool]) -> None:
        self._cluster, self._post, self._over = cluster, post, over
        self._turn = 0

    def begin(self) -> None:
        cluster, post, rng = self._cluster, self._post, self._cluster.engine.rng
        if self._over():
            cluster.network.places = {}
            return
        writer = post.writers[self._turn % len(post.writers)]
        self._turn += 1
        near = [box for box in post.boxes if rng.random() >= AWAY_CHANCE] or [rng.choice(post.boxes)]
        names = {process.node_id: process.spec.name for process in cluster.processes.values()}
        cluster.network.places = {
            node: 0 if name in (writer, *near) else place for place, (node, name) in enumerate(names.items(), 1)
        }
        cluster.engine.note(f"turn {writer} {' '.join(near)}")
        cluster.engine.after(rng.randint(*TURN_US), self.begin)
