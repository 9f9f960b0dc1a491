"""Messages for the people at this node. One of a source's is told from another by its request id: it comes once. A
quarter of the room is one source's, at most."""

from __future__ import annotations

import hashlib

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Exhausted, NotFound
from offgrid_node.protocol.ids import base32
from offgrid_node.protocol.mail.commands import TakeMessage
from offgrid_node.protocol.mail.tables import DATA, MESSAGES

MESSAGES_MAX, MESSAGES_BYTES_MAX = 1_000, 16 * 1024 * 1024
MESSAGE_BYTES_MAX = 64 * 1024
SHARE = 4  # of the room: one part for a source
RETRY_MS = 600_000
ID_BYTES = 10


class Messages:
    """Those that came and were not deleted."""

    def __init__(self, draft: Draft) -> None:
        self._draft = draft
        self._sizes: dict[str, tuple[str, int]] = {}  # source and size
        self._unread: set[str] = set()
        self._order = 0

    @property
    def unread(self) -> int:
        return len(self._unread)

    def load(self, rows: Rows) -> None:
        for key, value in rows.scan(MESSAGES):
            row = mail_pb2.MessageRow.FromString(value)
            self._sizes[key.decode()] = row.message.source, row.message.size_bytes
            self._order = max(self._order, row.order)
            if not row.message.read:
                self._unread.add(key.decode())

    def on_take(self, ticket: int, command: TakeMessage, now: Now) -> None:
        """Raises Exhausted (TooManyMessages)."""
        message_id = _id(command)
        row = self._row(message_id)
        if row is None:
            size = len(command.data)
            self._check_room(command.source, size)
            self._order += 1
            message = mail_pb2.Message(
                message_id=message_id,
                source=command.source,
                name=command.name,
                size_bytes=size,
                received_us=now.utc_us,
            )
            row = mail_pb2.MessageRow(message=message, order=self._order)
            self._sizes[message_id] = command.source, size
            self._unread.add(message_id)
            self._draft.put(MESSAGES, message_id.encode(), row)
            self._draft.put_bytes(DATA, message_id.encode(), command.data)
        response = mail_pb2.TakeMessageResponse(message_id=message_id, received_us=row.message.received_us)
        self._draft.reply(ticket, response)

    def on_read(self, ticket: int, message_id: str) -> None:
        """Raises NotFound (MessageNotFound)."""
        row = self._get(message_id)
        if not row.message.read:
            row.message.read = True
            self._unread.discard(message_id)
            self._draft.put(MESSAGES, message_id.encode(), row)
        data = self._draft.get(DATA, message_id.encode()) or b""
        self._draft.reply(ticket, mail_pb2.ReadMessageResponse(message=row.message, data=data))

    def on_delete(self, ticket: int, message_id: str) -> None:
        """Raises NotFound (MessageNotFound)."""
        self._get(message_id)
        del self._sizes[message_id]
        self._unread.discard(message_id)
        self._draft.delete(MESSAGES, message_id.encode())
        self._draft.delete(DATA, message_id.encode())
        self._draft.reply(ticket, mail_pb2.DeleteMessageResponse())

    def _check_room(self, source: str, size: int) -> None:
        """Raises Exhausted (TooManyMessages)."""
        everybodys = [size for _, size in self._sizes.values()]
        its = [size for whose, size in self._sizes.values() if whose == source]
        for whose, sizes, share in (("", everybodys, 1), (f" of {source}", its, SHARE)):
            if len(sizes) >= MESSAGES_MAX // share or sum(sizes) + size > MESSAGES_BYTES_MAX // share:
                text = f"{len(sizes)} messages{whose} with {sum(sizes)} bytes lie here and were not deleted"
                raise Exhausted(text, reason="TooManyMessages", retry_ms=RETRY_MS)

    def _get(self, message_id: str) -> mail_pb2.MessageRow:
        row = self._row(message_id)
        if row is None:
            raise NotFound(f"there is no message {message_id!r}", reason="MessageNotFound")
        return row

    def _row(self, message_id: str) -> mail_pb2.MessageRow | None:
        return self._draft.row(MESSAGES, message_id.encode(), mail_pb2.MessageRow)


def _id(command: TakeMessage) -> str:
    said = f"{command.source}/{command.request_id}".encode()
    return f"msg-{base32(hashlib.blake2b(said, digest_size=ID_BYTES, person=b'og.message').digest())}"
