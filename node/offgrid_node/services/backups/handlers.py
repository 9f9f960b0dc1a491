"""Handlers of BackupService: this node's store as a file that its owner may take away, and that file's size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from google.protobuf.message import Message

from offgrid.backup import BackupError
from offgrid.backup.recovery import Recipient
from offgrid.v1 import state_pb2
from offgrid_node.backups.errand import Done
from offgrid_node.protocol.errors import FailedPrecondition, Fault, InvalidRequest
from offgrid_node.runtime import Ticket
from offgrid_node.services.backups.making import Heard, Making, for_recovery
from offgrid_node.services.caller import Caller
from offgrid_node.services.flow import Flow, Step, run, ticket_of
from offgrid_node.services.stream import Stream
from offgrid_node.storage.compacting import Compacted
from offgrid_node.storage.format import FORMAT

PATH_CHARS_MAX = 4_096
DAMAGED_SHOWN = 100


class BackupHandlers:
    """`making`: None for a node whose store is no file."""

    def __init__(self, making: Making | None) -> None:
        self._making = making

    def create_backup(self, caller: Caller, request: state_pb2.CreateBackupRequest) -> Stream:
        """Goes on when nobody listens any more."""
        making, response = self._file(), state_pb2.CreateBackupResponse
        target, recipient = _target(request.path, making), _recipient(request, making)

        def made(done: Done) -> Message:
            damaged = done.damaged[:DAMAGED_SHOWN]
            backup = state_pb2.Backup(
                path=done.path,
                bytes=done.bytes,
                journal_seq=done.journal_seq,
                sealed=bool(recipient),
                damaged=damaged,
                damaged_total=len(done.damaged),
            )
            return response(done=True, backup=backup)

        return _told(lambda heard: making.back_up(target, recipient, heard), response, made)

    def list_backups(self, caller: Caller, request: state_pb2.ListBackupsRequest) -> Ticket:
        return ticket_of(self._listed())

    def compact_store(self, caller: Caller, request: state_pb2.CompactStoreRequest) -> Stream:
        making, response = self._file(), state_pb2.CompactStoreResponse

        def made(done: Compacted) -> Message:
            return response(done=True, before_bytes=done.before_bytes, after_bytes=done.after_bytes)

        return _told(making.compact, response, made)

    # ---- inside

    def _file(self) -> Making:
        if self._making is None:
            raise FailedPrecondition("this node's store is no file", reason="NoFile")
        return self._making

    def _listed(self) -> Flow[Message]:
        making = self._file()
        found = yield making.listed()
        size, used, limit = making.parts.file.sizes()
        said = state_pb2.ListBackupsResponse(
            folder=str(making.parts.folder),
            store_bytes=size,
            store_used_bytes=used,
            store_limit_bytes=limit,
            store_form=making.form,
            newest_form=FORMAT,
        )
        for each in found:
            said.backups.add(
                path=str(making.parts.folder / each.name),
                bytes=each.bytes,
                journal_seq=each.journal_seq,
                made_us=int(each.made.timestamp()) * 1_000_000,
                sealed=each.sealed,
                damaged_total=0 if each.whole else 1,
            )
        return said


def _told(
    begin: Callable[[Heard], Step[Any]], response: Callable[..., Message], made: Callable[[Any], Message]
) -> Stream:
    stream = Stream()

    def heard(doing: str, done_bytes: int, total_bytes: int) -> None:
        stream.push(response(doing=doing, done_bytes=done_bytes, total_bytes=total_bytes))

    def ended(outcome: Any) -> None:
        if isinstance(outcome, Fault):
            stream.end(outcome)
        else:
            stream.push(made(outcome))
            stream.end()

    def flow() -> Flow[Any]:
        return (yield begin(heard))

    run(flow(), ended)
    return stream


def _target(path: str, making: Making) -> Path:
    if len(path) > PATH_CHARS_MAX or "\0" in path:
        raise InvalidRequest.field("path", f"{len(path)} characters; {PATH_CHARS_MAX} at most are allowed, and no NUL")
    if path and not Path(path).is_absolute():
        raise InvalidRequest.field("path", f"{path!r} is no absolute path on the node's machine")
    return Path(path) if path else making.parts.folder


def _recipient(request: state_pb2.CreateBackupRequest, making: Making) -> bytes:
    """Encoded; empty: it is not sealed."""
    if request.recipient:
        try:
            return Recipient.decode(request.recipient).encode()
        except BackupError as error:
            raise InvalidRequest.field("recipient", str(error)) from error
    if not request.encrypt:
        return b""
    if not making.parts.recovery_key:
        text = (
            "no recovery key is set: `offgrid state recovery-key` makes one for state.recovery_key, or use a passphrase"
        )
        raise FailedPrecondition(text, reason="NoRecoveryKey")
    return for_recovery(making.parts.recovery_key)
