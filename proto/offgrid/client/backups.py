"""BackupService: the node's store as a file, and that file's size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from offgrid.backup.recovery import Recipient
from offgrid.client.calls import Calls
from offgrid.v1 import state_pb2


class Backups:
    """Raises OffgridError."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def create(
        self, path: Path | None = None, *, recipient: Recipient | None = None, encrypt: bool = False
    ) -> Iterator[state_pb2.CreateBackupResponse]:
        """How far a backup is; the last message is `done`, and names it. It goes on when nobody listens any more.

        `path` is of the node's machine: a file that is not there, or a folder; None: the folder of those that it makes
        by itself. Sealed for a recipient, or with `encrypt` for the recovery key of the node's settings."""
        request = state_pb2.CreateBackupRequest(
            path=str(path) if path is not None else "",
            recipient=recipient.encode() if recipient is not None else b"",
            encrypt=encrypt,
        )
        return self._calls.stream("BackupService/CreateBackup", request, state_pb2.CreateBackupResponse)

    def list(self) -> state_pb2.ListBackupsResponse:
        """Those that the node makes by itself, the newest first, and how large its store is."""
        request = state_pb2.ListBackupsRequest()
        return self._calls.unary("BackupService/ListBackups", request, state_pb2.ListBackupsResponse)

    def compact(self) -> Iterator[state_pb2.CompactStoreResponse]:
        """As `create`: the store's file becomes as small as what is in it."""
        request = state_pb2.CompactStoreRequest()
        return self._calls.stream("BackupService/CompactStore", request, state_pb2.CompactStoreResponse)
