"""quorum: weights, and quorums of signed acks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from offgrid.client.calls import Calls
from offgrid.client.paging import pages
from offgrid.v1 import quorum_pb2


class Quorum:
    """QuorumService. Weights are in thousandths: 2000 is "2.0"."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def weights(self) -> quorum_pb2.ListWeightsResponse:
        """The weights that membership gives, and how much of it is alive."""
        return self._calls.unary(
            "QuorumService/ListWeights", quorum_pb2.ListWeightsRequest(), quorum_pb2.ListWeightsResponse
        )

    def create(self, quorum_id: str, required_milli: int, members: Iterable[str] = ()) -> quorum_pb2.Quorum:
        """A quorum that the node owns. `members` are ids or names; none: every member of the mesh.

        Doing it twice is harmless; one of the same id that requires something else is an error (QuorumExists).
        """
        request = quorum_pb2.CreateQuorumRequest(
            quorum_id=quorum_id, required_milli=required_milli, members=list(members)
        )
        return self._calls.unary("QuorumService/CreateQuorum", request, quorum_pb2.CreateQuorumResponse).quorum

    def ack(self, quorum_id: str, node: str = "") -> quorum_pb2.Quorum:
        """Asks `node` ("": the node itself) for its signed ack, and returns once it is durable. Safe to repeat."""
        request = quorum_pb2.AckQuorumRequest(quorum_id=quorum_id, node=node)
        return self._calls.unary("QuorumService/AckQuorum", request, quorum_pb2.AckQuorumResponse).quorum

    def status(self, quorum_id: str, owner: str = "") -> quorum_pb2.Quorum:
        """The node's own quorum, or one that it keeps track of as a broker; `owner` says whose, where it must."""
        request = quorum_pb2.GetQuorumRequest(quorum_id=quorum_id, owner=owner)
        return self._calls.unary("QuorumService/GetQuorum", request, quorum_pb2.GetQuorumResponse).quorum

    def list(self, *, with_objects: bool = False, limit: int | None = None) -> Iterator[quorum_pb2.Quorum]:
        """Quorums by owner and id; those that objects opened for themselves only `with_objects`."""

        def fetch(size: int, token: str) -> tuple[list[quorum_pb2.Quorum], str]:
            request = quorum_pb2.ListQuorumsRequest(page_size=size, page_token=token, with_objects=with_objects)
            page = self._calls.unary("QuorumService/ListQuorums", request, quorum_pb2.ListQuorumsResponse)
            return [*page.quorums], page.next_page_token

        return pages(fetch, limit)
