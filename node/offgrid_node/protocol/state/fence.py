"""What a node that was restored must not do: use a number again that it gave after the last segment was cut.

Whatever it said since is known to others and not to itself. So every counter whose numbers others remember jumps ahead,
farther than a node comes between two segments, and epochs of quorums begin above a floor that rises with each life. In
the ledger, where numbers leave no gap, it says nothing before it has learnt what it said (`ledger/learning.py`); that
holds too for one that had gone mute because it had forgotten something, unless its chain has forked.
Whoever begins a life tells the members first (`objects/lives.py`), so the next one begins behind it where one of them
answers both times. Where some are silent lives are a chance number apart besides.
"""

from __future__ import annotations

from collections.abc import Iterator

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.chains import decode_author
from offgrid_node.protocol.ledger.tables import AUTHORS, LEARN_KEY, MUTE_KEY
from offgrid_node.protocol.ledger.tables import META as LEDGER
from offgrid_node.protocol.mesh.machine import BOOT_KEY
from offgrid_node.protocol.objects.inventory import sum_key
from offgrid_node.protocol.objects.lives import last_life, lives_of
from offgrid_node.protocol.objects.tables import INVENTORY_SUMS, KEPT, LAST_NOTICE, LAST_NUMBER, META, OBJECTS
from offgrid_node.protocol.quorum.tables import LAST_CHANGE, LIFE

Write = tuple[tuple[str, bytes], bytes | None]
NUMBER_BYTES = 8
BOOTS_AHEAD = 1 << 12  # below mesh/swim.py's bound of what is believed, far above the restarts between two segments
NUMBERS_AHEAD = 1 << 32  # times the life
LIVES_APART = 1_024  # at most; a key of few lives takes fewer (lives_of)
RESTORES = 16  # have room below a key's last life, though members were silent each time


def life_after(newest: int, draw: int, number: int) -> int:
    """The next life behind the newest that is known, for a key that `number` others went before; `draw` is a chance
    number below LIVES_APART, or 0 where nobody can know of a newer one. Raises FailedPrecondition (LivesOver) where
    there is none."""
    room = last_life(number) - newest
    if room <= 0:
        text = (
            f"life {newest} of this node is known, the last that its present key may begin: unless it was restored "
            "very often, that one is in wrong hands. The next key has lives behind that one: offgrid-node rotate "
            "identity"
        )
        raise FailedPrecondition(text, reason="LivesOver")
    return newest + 1 + draw % min(room, max(1, lives_of(number) // RESTORES))


def fenced(rows: Rows, node_id: str, life: int) -> Iterator[Write]:
    """The writes that make this node's rows of before safe to go on with, in this life."""
    numbers = life * NUMBERS_AHEAD
    for key, ahead in (
        (BOOT_KEY, BOOTS_AHEAD),
        (LAST_NUMBER, numbers),
        (LAST_NOTICE, numbers),
        (LAST_CHANGE, numbers),
    ):
        number = int.from_bytes(rows.get(META, key) or b"", "big") + ahead
        yield (META, key), number.to_bytes(NUMBER_BYTES, "big")
    yield (META, LIFE), life.to_bytes(NUMBER_BYTES, "big")
    yield (LEDGER, LEARN_KEY), b"\1"
    own = rows.get(AUTHORS, node_id_bytes(node_id))
    if own is None or not decode_author(own).frozen:
        yield (LEDGER, MUTE_KEY), None


def without_blobs(rows: Rows) -> Iterator[Write]:
    """Where the disk is gone: the node reads its own objects from hosts, and keeps nothing for others any more."""
    for key, _ in rows.scan(INVENTORY_SUMS, prefix=sum_key(KEPT, "")):
        yield (INVENTORY_SUMS, key), None  # nothing is kept for others any more
    for key, value in rows.scan(OBJECTS):
        row = objects_pb2.ObjectRow.FromString(value)
        if row.object.local:
            row.object.local = False
            yield (OBJECTS, key), row.SerializeToString()
