"""The broker's part: it keeps the quorums that owners tell it of, as they stand, until their owners close them."""

from __future__ import annotations

from offgrid.v1 import quorum_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.latecomers import Latecomers
from offgrid_node.protocol.quorum.commands import TrackQuorums
from offgrid_node.protocol.quorum.quota import Quota
from offgrid_node.protocol.quorum.records import Epoch
from offgrid_node.protocol.quorum.settings import QuorumSettings
from offgrid_node.protocol.quorum.tables import QUORUMS, quorum_key
from offgrid_node.protocol.quorum.tally import merged


class Tracking:
    """Rows of others' quorums, beside this node's own."""

    def __init__(self, settings: QuorumSettings, draft: Draft) -> None:
        self._draft = draft
        self._quota = Quota(draft, "quorums", settings.tracked_max)
        self._latecomers = Latecomers()

    def on_track(self, ticket: int, command: TrackQuorums, now: Now) -> None:
        """Raises Exhausted (QuotaFull), PeerFault for an ack that cannot count; what came before it is kept. Raises
        FailedPrecondition (CameLate): what is closed is not brought back."""
        self._latecomers.check(command.owner, command.life, command.number, now.mono_ms)
        for quorum_id in command.closed:
            key = quorum_key(command.owner, quorum_id)
            if self._draft.get(QUORUMS, key) is not None:
                self._draft.delete(QUORUMS, key)
                self._quota.give_back(command.owner)
        for told in command.rows:
            key = quorum_key(command.owner, Epoch.decode(told.epoch.body).quorum_id)
            held = self._draft.row(QUORUMS, key, quorum_pb2.QuorumRow)
            row = merged(held, told)
            if row is None:
                continue
            if held is None:
                self._quota.take(command.owner)
            self._draft.put(QUORUMS, key, row)
        self._draft.reply(ticket, quorum_pb2.TrackQuorumsResponse())
