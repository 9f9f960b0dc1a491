"""mesh: this node, its peers, invites and removals."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from offgrid.client.calls import Calls
from offgrid.client.paging import pages
from offgrid.v1 import mesh_pb2
from offgrid.v1.common_pb2 import Role

ROLES = {"core": Role.ROLE_CORE, "broker": Role.ROLE_BROKER, "host": Role.ROLE_HOST}


class Mesh:
    """MeshService."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def status(self) -> mesh_pb2.GetStatusResponse:
        """What this node is and how it does."""
        return self._calls.unary("MeshService/GetStatus", mesh_pb2.GetStatusRequest(), mesh_pb2.GetStatusResponse)

    def peers(self, *, include_removed: bool = False, limit: int | None = None) -> Iterator[mesh_pb2.Peer]:
        """Every member, this node among them, and how alive each seems from here."""

        def fetch(size: int, token: str) -> tuple[list[mesh_pb2.Peer], str]:
            request = mesh_pb2.ListPeersRequest(page_size=size, page_token=token, include_removed=include_removed)
            page = self._calls.unary("MeshService/ListPeers", request, mesh_pb2.ListPeersResponse)
            return list(page.peers), page.next_page_token

        return pages(fetch, limit)

    def invite(
        self, *, roles: Iterable[str] = (), weight_milli: int = 0, domain: str = ""
    ) -> mesh_pb2.CreateInviteResponse:
        """One single-use invite; its `token` is all that the new node needs.

        `roles` ("core", "broker", "host"; none: all) are what the new member may do, `weight_milli` counts in quorums
        (thousandths; 0: 1000), `domain` names what it fails together with. Raises ValueError for an unknown role. It is
        not repeated when its outcome is unknown: an unused invite is harmless.
        """
        request = mesh_pb2.CreateInviteRequest(
            roles=[_role(name) for name in roles],
            weight_milli=weight_milli,
            failure_domain=domain,
        )
        return self._calls.unary("MeshService/CreateInvite", request, mesh_pb2.CreateInviteResponse, repeatable=False)

    def invites(self, *, open_only: bool = False, limit: int | None = None) -> Iterator[mesh_pb2.Invite]:
        """What this node has invited by, without the secrets."""

        def fetch(size: int, token: str) -> tuple[list[mesh_pb2.Invite], str]:
            request = mesh_pb2.ListInvitesRequest(page_size=size, page_token=token, open_only=open_only)
            page = self._calls.unary("MeshService/ListInvites", request, mesh_pb2.ListInvitesResponse)
            return list(page.invites), page.next_page_token

        return pages(fetch, limit)

    def revoke_invite(self, invite: str) -> mesh_pb2.Invite:
        """Takes back one that nobody has used; `invite` is its id or the id's first characters (at least 4)."""
        request = mesh_pb2.RevokeInviteRequest(invite=invite)
        return self._calls.unary("MeshService/RevokeInvite", request, mesh_pb2.RevokeInviteResponse).invite

    def page_link(self) -> mesh_pb2.CreatePageLinkResponse:
        """A link to this node's web page; where its gateway asks for a token, one that signs a browser in, once."""
        request = mesh_pb2.CreatePageLinkRequest()
        return self._calls.unary("MeshService/CreatePageLink", request, mesh_pb2.CreatePageLinkResponse)

    def stop(self) -> None:
        """Has the node stop in order, which takes it a moment. Not repeated: it might be up again by then."""
        request = mesh_pb2.StopNodeRequest()
        self._calls.unary("MeshService/StopNode", request, mesh_pb2.StopNodeResponse, repeatable=False)

    def proof(self, node: str) -> mesh_pb2.GetMemberProofResponse:
        """What shows, far from the mesh, whose key a member's is; `node` as in `remove`, a removed one too."""
        request = mesh_pb2.GetMemberProofRequest(node=node)
        return self._calls.unary("MeshService/GetMemberProof", request, mesh_pb2.GetMemberProofResponse)

    def remove(self, node: str) -> mesh_pb2.Member:
        """Revokes a membership. `node` is a node id, its first characters (at least 4, unambiguous) or its name."""
        request = mesh_pb2.RemoveMemberRequest(node=node)
        return self._calls.unary("MeshService/RemoveMember", request, mesh_pb2.RemoveMemberResponse).member


def _role(name: str) -> Role.ValueType:
    if name not in ROLES:
        raise ValueError(f"{name!r} is no role; there are {', '.join(ROLES)}")
    return ROLES[name]
