"""mail: messages and jobs for members that are away, and what others have sent here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Unpack

from offgrid.client.calls import Calls, fresh_request_id
from offgrid.client.options import JobOptions, Work, mode_of, spec_of
from offgrid.client.paging import pages
from offgrid.v1 import mail_pb2


class Mail:
    """MailService. A node may be named by its id, the first characters of that, or its name."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def send(
        self, node: str, data: str | bytes, *, name: str = "", expires_s: float = 0, request_id: str = ""
    ) -> mail_pb2.Mail:
        """A message for the people at `node`: text, or the bytes of a file that is called `name`; 64 KiB at most.

        It is durable here when this returns, and sets out by itself; `get` tells how far it has come. It is given up
        after `expires_s`, 0: when the node's config says."""
        content = data.encode() if isinstance(data, str) else data
        message = mail_pb2.TakeMessageRequest(name=name, data=content)
        return self._send(mail_pb2.SendMailRequest(node=node, message=message), expires_s, request_id)

    def send_job(
        self,
        node: str,
        work: Work,
        *,
        mode: str = "",
        expires_s: float = 0,
        request_id: str = "",
        **options: Unpack[JobOptions],
    ) -> mail_pb2.Mail:
        """A job for the core `node`, which runs it on its own account if its mail.jobs_from names this node. `get` has
        the ended job. It brings its input itself: no files, objects or other jobs may be named."""
        job = mail_pb2.TakeJobRequest(job=spec_of(work, options), mode=mode_of(mode))
        return self._send(mail_pb2.SendMailRequest(node=node, job=job), expires_s, request_id)

    def get(self, number: int) -> mail_pb2.GetMailResponse:
        """What this node has sent under that number, and what came of it."""
        return self._calls.unary(
            "MailService/GetMail", mail_pb2.GetMailRequest(number=number), mail_pb2.GetMailResponse
        )

    def sent(self, *, newest_first: bool = True, limit: int | None = None) -> Iterator[mail_pb2.Mail]:
        """What this node has sent, without answers."""

        def fetch(size: int, token: str) -> tuple[list[mail_pb2.Mail], str]:
            request = mail_pb2.ListMailRequest(page_size=size, page_token=token, newest_first=newest_first)
            page = self._calls.unary("MailService/ListMail", request, mail_pb2.ListMailResponse)
            return [*page.mail], page.next_page_token

        return pages(fetch, limit)

    def messages(self, *, newest_first: bool = False, limit: int | None = None) -> Iterator[mail_pb2.Message]:
        """What others have sent here, in the order in which it came unless `newest_first`."""

        def fetch(size: int, token: str) -> tuple[list[mail_pb2.Message], str]:
            request = mail_pb2.ListMessagesRequest(page_size=size, page_token=token, newest_first=newest_first)
            page = self._calls.unary("MailService/ListMessages", request, mail_pb2.ListMessagesResponse)
            return [*page.messages], page.next_page_token

        return pages(fetch, limit)

    def read(self, message_id: str) -> mail_pb2.ReadMessageResponse:
        """A message with its bytes; it counts as read then."""
        request = mail_pb2.ReadMessageRequest(message_id=message_id)
        return self._calls.unary("MailService/ReadMessage", request, mail_pb2.ReadMessageResponse)

    def delete(self, message_id: str) -> None:
        request = mail_pb2.DeleteMessageRequest(message_id=message_id)
        self._calls.unary("MailService/DeleteMessage", request, mail_pb2.DeleteMessageResponse)

    def held(self, *, limit: int | None = None) -> Iterator[mail_pb2.HeldParcel]:
        """What this node holds for others."""

        def fetch(size: int, token: str) -> tuple[list[mail_pb2.HeldParcel], str]:
            page = self.mailbox(size, token)
            return [*page.parcels], page.next_page_token

        return pages(fetch, limit)

    def mailbox(self, page_size: int = 1, page_token: str = "") -> mail_pb2.GetMailboxResponse:
        """How full this node's mailbox is, and a page of what is in it."""
        request = mail_pb2.GetMailboxRequest(page_size=page_size, page_token=page_token)
        return self._calls.unary("MailService/GetMailbox", request, mail_pb2.GetMailboxResponse)

    def _send(self, request: mail_pb2.SendMailRequest, expires_s: float, request_id: str) -> mail_pb2.Mail:
        request.expires_in_ms = int(expires_s * 1_000)
        request.request_id = request_id or fresh_request_id()
        return self._calls.unary("MailService/SendMail", request, mail_pb2.SendMailResponse).mail
