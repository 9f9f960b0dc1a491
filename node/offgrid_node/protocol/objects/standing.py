"""How things stand with an object for another node: what its owner says of it when a notice leaves (`notices.py`), and
which hosts may drop what they keep of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from offgrid.v1 import common_pb2, objects_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.objects.hosts import Hosts
from offgrid_node.protocol.objects.inventory import Holding
from offgrid_node.protocol.objects.leaving import Leaving
from offgrid_node.protocol.objects.outbox import Outbox
from offgrid_node.protocol.objects.sharing import add_wrap, told_to
from offgrid_node.protocol.objects.strays import moved_by
from offgrid_node.protocol.quorum.records import Epoch

Tell = Callable[[str, str, Now], None]
"""A node has to hear of an object from now on."""


class Standing:
    """Asks the rows of now; `leaving` are hosts to which the word that they may go cannot be given yet."""

    def __init__(
        self,
        outbox: Outbox,
        hosts: Hosts,
        tell: Tell,
        is_deleted: Callable[[str], bool],
        is_unproved: Callable[[str], bool],
        is_sure: Callable[[str], bool],
        on_unasked: Callable[[str, str], None],
        regain: Callable[[str, str], bool],
    ) -> None:
        """`is_unproved`: an audit of the object is wanted soon; `is_sure`: the host is alive and was compared.
        `on_unasked` hears of a host that is emptied and an object that it keeps unasked, and may not drop yet. `regain`
        takes an object back that a host keeps and is not known here, where that may be; whether it is."""
        self._on_unasked = on_unasked
        self._outbox, self._hosts, self._tell = outbox, hosts, tell
        self._is_deleted, self._is_unproved, self._is_sure = is_deleted, is_unproved, is_sure
        self._regain = regain
        self.leaving = Leaving(tell)

    def on_spread(self, object_id: str, now: Now) -> None:
        """All of it lies where it is to lie: hosts that are emptied and have no place in that may drop theirs, once it
        is proved."""
        if self._is_unproved(object_id):
            return
        row = self._outbox.get(object_id)
        for node_id in row.asked:
            if self._leaves(row, node_id):
                self._tell(node_id, object_id, now)

    def on_stray(self, node_id: str, holding: Holding, now: Now) -> bool:
        """What was deleted here is deleted there: it has come back from a backup; and what lies with others by now is
        dropped. An object that is not known here this node may have lost itself. Whether there may be more to say
        soon."""
        object_id, row = holding.object_id, self._outbox.find_sound(holding.object_id)
        if row is None and self._is_deleted(object_id):
            self._tell(node_id, object_id, now)
        elif row is None:
            return not self._outbox.is_damaged(object_id) and self._regain(object_id, node_id)
        else:
            return not self._is_placed(self._outbox.ask(object_id, node_id), node_id, now)
        return False

    def _is_placed(self, row: objects_pb2.ObjectRow, node_id: str, now: Now) -> bool:
        """Whether a host that keeps it unasked may drop it, and is told. It has it, whoever brought it there, so from
        now on it hears what becomes of it."""
        if self._moved_by(row, node_id) is not None:
            self._tell(node_id, row.object.object_id, now)
            return True
        if self._hosts.is_drained(node_id):
            self._on_unasked(node_id, row.object.object_id)
        return False

    def notice_of(
        self, node_id: str, objects: Sequence[tuple[str, bool]], now: Now
    ) -> objects_pb2.DeliverNoticesRequest:
        """How things stand with these objects for that node; of those that are marked, what its wrap is."""
        notices = objects_pb2.DeliverNoticesRequest()
        for object_id, only_wrap in objects:
            row = self._outbox.find_sound(object_id)
            if row is not None:
                notices.moved.extend(self._moved(row, node_id, now))
                _add_shared(notices, row, node_id, only_wrap=only_wrap)
            elif self._is_deleted(object_id):
                notices.deleted.append(object_id)
            # else it is not known here: nobody deletes anything for that
        return notices

    def _moved(self, row: objects_pb2.ObjectRow, node_id: str, now: Now) -> list[common_pb2.Signed]:
        """The epoch by which a host may drop what it keeps. One that leaves hears it later, if not now."""
        object_id = row.object.object_id
        epoch = self._moved_by(row, node_id) if node_id in row.asked else None
        if epoch is None and self._leaves(row, node_id):
            self.leaving.later(node_id, object_id, now)
        else:
            self.leaving.over(node_id, object_id)
        return [epoch] if epoch is not None else []

    def _moved_by(self, row: objects_pb2.ObjectRow, node_id: str) -> common_pb2.Signed | None:
        """As `moved_by`, once audits have shown that who vouches for what this node cannot check has it."""
        if self._is_unproved(row.object.object_id):
            return None
        return moved_by(row, node_id, self._is_sure)

    def _leaves(self, row: objects_pb2.ObjectRow, node_id: str) -> bool:
        """Whether it is emptied, may have some of it, and has no place any more."""
        if node_id not in row.asked or not row.HasField("epoch"):
            return False
        laid = Epoch.decode(row.epoch.body).shards
        return not laid.get(node_id) and self._hosts.is_drained(node_id)


def _add_shared(
    notices: objects_pb2.DeliverNoticesRequest, row: objects_pb2.ObjectRow, node_id: str, *, only_wrap: bool
) -> None:
    """What the node may read of it: its own wrap and no other's; or that it may not."""
    shared, object_id = told_to(row, node_id), row.object.object_id
    if shared is None:
        notices.unshared.append(object_id)
    elif only_wrap:
        add_wrap(notices, object_id, shared.manifest.wraps[0].sealed_key)
    else:
        notices.shared.append(shared)
