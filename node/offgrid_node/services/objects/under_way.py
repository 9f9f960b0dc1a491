"""Which uploads a node remembers, and for how long.

    under way ── CommitUpload ──► committed: an object, which its request id finds; its place is free
        │
        ├─ AbortUpload, or a broken write: its bytes go at once
        ├─ nobody has gone on with it for IDLE_MS_MAX, and another wants its place: it goes
        └─ nobody has gone on with it for UNNAMED_MS_MAX, or NAMED_MS_MAX where it has a request id: it goes

Whoever has the request id may take an upload up again. One without is known to the caller that began it alone. What
works just now never goes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import msgspec

from offgrid.plaintext import PlaintextChecksum
from offgrid.v1 import objects_pb2
from offgrid_node.protocol.errors import Exhausted, NotFound
from offgrid_node.services.objects.sealing import Sealing

UPLOADS_MAX = 32  # remembered at once; each holds up to a stripe and a piece in memory
IDLE_MS_MAX = 60_000  # one that nobody goes on with for so long makes room for another
UNNAMED_MS_MAX = 600_000  # and for so long goes by itself: what has come of it may fill a disk
NAMED_MS_MAX = 86_400_000  # for so long what has a request id can be gone on with


class Upload(msgspec.Struct):
    """Of one OpenUpload. `sealing` goes and `object_id` comes when the object is committed.

    `shared`: more than one OpenUpload was answered with it. They may be one client's, or two clients' whose bytes get
    mixed; the checksum that each must say at the end tells. `working`: so many calls go on with it just now.
    """

    upload_id: str
    request: objects_pb2.OpenUploadRequest
    used_ms: int
    sealing: Sealing | None = None
    object_id: str = ""
    size_bytes: int = 0
    shared: bool = False
    working: int = 0
    plaintext: PlaintextChecksum = msgspec.field(default_factory=PlaintextChecksum)

    def idle_ms(self, now_ms: int) -> int:
        return 0 if self.working else now_ms - self.used_ms


class UnderWay:
    """Places for UPLOADS_MAX of them; times are those of one clock that only goes forward."""

    def __init__(self) -> None:
        self._uploads: OrderedDict[str, Upload] = OrderedDict()  # by upload id, the longest unused first

    @property
    def open(self) -> Sequence[Upload]:
        """Those that are no objects yet."""
        return [upload for upload in self._uploads.values() if upload.sealing is not None]

    def add(self, upload: Upload) -> Upload | None:
        """Who had to make room for it, if anybody. Raises Exhausted (TooManyUploads) when nobody can."""
        left = self._who_makes_room(upload.used_ms) if len(self._uploads) >= UPLOADS_MAX else None
        if left is not None:
            self.remove(left)
        self._uploads[upload.upload_id] = upload
        return left

    def remove(self, upload: Upload) -> None:
        self._uploads.pop(upload.upload_id, None)

    def use(self, upload_id: str, now_ms: int) -> Upload:
        """Raises NotFound (UploadNotFound)."""
        upload = self._uploads.get(upload_id)
        if upload is None:
            raise NotFound(
                f"there is no upload {upload_id!r} (any more); open it again with the same request id",
                reason="UploadNotFound",
                metadata={"upload_id": upload_id[:64]},
            )
        upload.used_ms = now_ms
        self._uploads.move_to_end(upload_id)
        return upload

    def named(self, request_id: str) -> Upload | None:
        return next((each for each in self._uploads.values() if each.request.request_id == request_id), None)

    def left(self, now_ms: int) -> Sequence[Upload]:
        """Those that nobody has gone on with for too long."""
        return [
            upload
            for upload in self.open
            if upload.idle_ms(now_ms) >= (NAMED_MS_MAX if upload.request.request_id else UNNAMED_MS_MAX)
        ]

    def _who_makes_room(self, now_ms: int) -> Upload:
        """What is committed is found again without its place; then what nobody can take up any more."""
        done = next((each for each in self._uploads.values() if each.sealing is None and not each.working), None)
        if done is not None:
            return done
        idle = [upload for upload in self.open if upload.idle_ms(now_ms) >= IDLE_MS_MAX]
        if not idle:
            wait_ms = IDLE_MS_MAX - max((upload.idle_ms(now_ms) for upload in self.open), default=0)
            text = f"{UPLOADS_MAX} uploads are under way; one that rests for {IDLE_MS_MAX // 1000} s makes room"
            raise Exhausted(text, reason="TooManyUploads", retry_ms=wait_ms)
        return min(idle, key=lambda upload: bool(upload.request.request_id))
