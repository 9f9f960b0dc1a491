"""What a manifest that another node signed may ask of this one, beyond being well formed."""

from __future__ import annotations

from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.merkle import LEAVES_MAX
from offgrid_node.protocol.objects.manifest import Manifest

WRAPS_MAX, WRAP_BYTES_MAX = 64, 256
NOTE_BYTES_MAX = 4 << 10  # of a name, a key and a request id of 256 characters each
MANIFEST_BYTES_MAX = 32 << 10  # body, signature and all wraps, with nothing that only a later version knows
ROW_BYTES_MIN = 4_096  # below it hashing is paid by the row, not by the byte; 127 rows of a stripe of 1 MiB have 8 kB
SMALL_ROWS_MAX = 1 << 16  # of all shards, below which rows may be as small as they like: half a second's work


def check_bounds(manifest: objects_pb2.Manifest, body: Manifest) -> None:
    """Raises InvalidRequest. `body` is what the manifest's signed bytes say."""
    if body.stripes > LEAVES_MAX:
        raise InvalidRequest.field("manifest", f"{body.stripes} stripes; at most {LEAVES_MAX} are allowed")
    if body.row_bytes < ROW_BYTES_MIN and body.stripes * body.n > SMALL_ROWS_MAX:
        said = f"{body.stripes} stripes of {body.n} rows of {body.row_bytes} bytes"
        wanted = f"at most {SMALL_ROWS_MAX} rows are allowed where they have fewer than {ROW_BYTES_MIN} bytes"
        raise InvalidRequest.field("manifest", f"{said}; {wanted}")
    if manifest.ByteSize() > MANIFEST_BYTES_MAX:
        raise InvalidRequest.field("manifest", f"{manifest.ByteSize()} bytes; at most {MANIFEST_BYTES_MAX} are allowed")
    if len(manifest.note) > NOTE_BYTES_MAX:
        raise InvalidRequest.field("manifest.note", f"{len(manifest.note)} bytes; at most {NOTE_BYTES_MAX} are allowed")
    if len(manifest.wraps) > WRAPS_MAX:
        raise InvalidRequest.field("manifest.wraps", f"{len(manifest.wraps)} wraps; at most {WRAPS_MAX} are allowed")
    for index, wrap in enumerate(manifest.wraps):
        if len(wrap.sealed_key) > WRAP_BYTES_MAX or len(wrap.node_id) > 64:
            raise InvalidRequest.field(
                f"manifest.wraps[{index}]", f"at most {WRAP_BYTES_MAX} bytes for a node id of 64 characters"
            )
