"""A host's large outputs: sealed blobs that lie here, each named by a row, until the core that awaits them has
answered. What no row names is swept.
"""

from __future__ import annotations

from offgrid_node.protocol.effects import Executed
from offgrid_node.protocol.jobs.leases import Lease
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.objects.manifest import Manifest

RESULT_BLOBS = "host_result_blobs"  # object id → empty


class ResultBlobs:
    """A blob is said as the body of its manifest."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def keep(self, lease: Lease) -> None:
        """Its report names them."""
        for blob in lease.blobs:
            self._post.put_bytes(RESULT_BLOBS, _object_id(blob).encode(), b"")

    def drop(self, lease: Lease) -> None:
        """They are settled."""
        for blob in lease.blobs:
            self._post.delete(RESULT_BLOBS, _object_id(blob).encode())  # else it would still be wanted
            self._post.drop_blob(_object_id(blob))

    def refuse(self, end: Executed, lease: Lease | None) -> None:
        """Nobody waits for this end of the work; what the lease has reported stays."""
        reported = lease.blobs if lease is not None else ()
        for blob in (end.blob, end.files_blob):
            if blob and blob not in reported:
                self._post.drop_blob(_object_id(blob))


def _object_id(blob: bytes) -> str:
    return Manifest.decode(blob).object_id
