"""Rows on their way from one sealed copy to several hosts: read, worked out and hashed once for all of them.

Ships of one object that go at about the same pace draw from the same cuts. A cut is kept until all whom it was made for
have gone on; who falls behind, or comes later, gets cuts of his own. What all cuts hold is bounded.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence

import msgspec

from offgrid_node.protocol.errors import Fault
from offgrid_node.protocol.objects.hashing import Possession
from offgrid_node.protocol.objects.manifest import Manifest
from offgrid_node.protocol.objects.shards import row_span
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Step
from offgrid_node.services.objects.source import CUT_BYTES, ShardSource, stripes_together

CUTS_BYTES_MAX = 3 * CUT_BYTES  # held or under way: one that leaves, one that comes, one for who is a little slower
BEHIND_MAX = 2  # cuts: whoever is further behind is waited for no more

Rows = Mapping[int, bytes]
"""By shard, of the stripes of one cut."""
Waiting = Callable[[Rows | Fault], None]


class Drawing(msgspec.Struct, eq=False):
    """One Ship's part in it: draws from the first cut to the last, perhaps more than once. `possession` is of all that
    was cut for it, whether or not it has come to draw that."""

    manifest: Manifest
    shards: Sequence[int]
    possession: Possession
    at: int = 0  # the stripe that its newest cut begins with
    following: int = 0  # the first stripe that no cut was made of for it: so possession takes the bytes in their order


class _Cut(msgspec.Struct, eq=False):
    manifest: Manifest
    first: int
    count: int
    made_for: Sequence[Drawing]
    wanted_by: set[Drawing]  # of these, who has not gone on
    waiting: list[Waiting] = msgspec.field(default_factory=list)
    outcome: Rows | Fault | None = None

    @property
    def shards(self) -> list[int]:
        return sorted({shard for drawing in self.made_for for shard in drawing.shards})

    @property
    def size_bytes(self) -> int:
        return self.count * self.manifest.row_bytes * len(self.shards)


class Cutting:
    """Belongs to the runtime's thread; the cuts are made in others, those of one object one after another."""

    def __init__(self, source: ShardSource, bulk: Bulk) -> None:
        self._source, self._bulk = source, bulk
        self._drawing: dict[str, list[Drawing]] = {}  # by object
        self._cuts: OrderedDict[_Cut, None] = OrderedDict()  # the oldest first

    @property
    def held_bytes(self) -> int:
        return sum(cut.size_bytes for cut in self._cuts)

    def join(self, drawing: Drawing) -> None:
        self._drawing.setdefault(drawing.manifest.object_id, []).append(drawing)

    def leave(self, drawing: Drawing) -> None:
        others = self._drawing[drawing.manifest.object_id]
        others.remove(drawing)
        if not others:
            del self._drawing[drawing.manifest.object_id]
        self._release(drawing, drawing.manifest.stripes)

    def rows(self, drawing: Drawing, first: int) -> Step[Rows]:
        """Its shards' rows of the cut that begins with this stripe; what lies before, it needs no more."""

        def start(done: Waiting) -> None:
            drawing.at = first
            self._release(drawing, first)
            cut = next((c for c in self._cuts if drawing in c.wanted_by and c.first == first), None)
            cut = cut or self._begin(drawing, first)
            if cut.outcome is not None:
                done(cut.outcome)
            else:
                cut.waiting.append(done)

        return start

    # ---- cuts

    def _begin(self, drawing: Drawing, first: int) -> _Cut:
        """For all who come by there soon, if there is room for that; else for this one alone."""
        manifest = drawing.manifest
        count = min(stripes_together(manifest), manifest.stripes - first)
        made_for = [drawing, *self._others(drawing, first)]
        cut = _Cut(manifest, first, count, made_for, set(made_for))
        if not self._make_room(cut.size_bytes):
            cut = _Cut(manifest, first, count, [drawing], {drawing})
        self._cuts[cut] = None
        for each in cut.made_for:
            if each.following == first:
                each.following += count

        def ended(outcome: Rows | Fault) -> None:
            cut.outcome = outcome
            if isinstance(outcome, Fault):
                self._cuts.pop(cut, None)
            for waiting in cut.waiting:
                waiting(outcome)
            cut.waiting.clear()

        lane = f"cut {manifest.object_id}"  # possession takes a shard's bytes in their order
        self._bulk.run(lambda: self._made(cut), key=lane, size_bytes=2 * cut.size_bytes)(ended)
        return cut

    def _made(self, cut: _Cut) -> Rows:
        """In a thread."""
        begin = row_span(cut.manifest, cut.first)[0]
        rows = self._source.cut(cut.manifest, cut.first, cut.count, cut.shards)
        for drawing in cut.made_for:
            for shard in drawing.shards:
                if drawing.possession.reached(shard) == begin:
                    drawing.possession.add(shard, rows[shard])
        return rows

    def _others(self, drawing: Drawing, first: int) -> list[Drawing]:
        """Whose next cut it is, and who will draw it soon."""
        nearest = first - BEHIND_MAX * stripes_together(drawing.manifest)
        others = self._drawing[drawing.manifest.object_id]
        return [each for each in others if each is not drawing and each.following == first and each.at >= nearest]

    def _release(self, drawing: Drawing, before: int) -> None:
        for cut in [each for each in self._cuts if drawing in each.wanted_by and each.first < before]:
            cut.wanted_by.discard(drawing)
            if not cut.wanted_by:
                del self._cuts[cut]

    def _make_room(self, more_bytes: int) -> bool:
        """Forgets the oldest that are made; those under way are waited for."""
        for cut in list(self._cuts):
            if self.held_bytes + more_bytes <= CUTS_BYTES_MAX:
                break
            if cut.outcome is not None:
                del self._cuts[cut]
        return self.held_bytes + more_bytes <= CUTS_BYTES_MAX
