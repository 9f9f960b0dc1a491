"""MailService: mail as people send and read it, and parcels as nodes pass them on.

Letters are sealed and opened here, and signatures checked, before the machine sees anything. What is asked for by
reading is answered from committed rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NoReturn

from google.protobuf.message import DecodeError, Message

from offgrid.v1 import mail_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import Fault, InvalidRequest, NotFound, PermissionDenied
from offgrid_node.protocol.mail import commands
from offgrid_node.protocol.mail.machine import MailMachine
from offgrid_node.protocol.mail.messages import MESSAGE_BYTES_MAX
from offgrid_node.protocol.mail.parcels import SEALED_BYTES_MAX, ParcelHead, letter_context, verify_head, verify_parcel
from offgrid_node.protocol.mail.sender import DROPS_MAX
from offgrid_node.protocol.mail.tables import HELD, MESSAGES, OUTBOX, number_key, parcel_of
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.runtime import Runtime, Ticket
from offgrid_node.services.caller import Caller
from offgrid_node.services.checks import check_request_id, check_text, digest_of_request
from offgrid_node.services.jobs.results import Letters
from offgrid_node.services.mail.jobs import MailedJobs, check_mailed
from offgrid_node.services.packet_methods import METHOD_NUMBERS
from offgrid_node.services.packet_status import fault_from_bytes
from offgrid_node.services.paging import decode_token, take_page

NAME_CHARS_MAX = 256
SUBJECT_CHARS_MAX = 60
EXPIRES_MS_MAX = 366 * 86_400_000
TAKE_MESSAGE, TAKE_JOB = "offgrid.v1.MailService/TakeMessage", "offgrid.v1.MailService/TakeJob"


Check = Callable[[mail_pb2.Parcel, Sequence[bytes], Verifier, bytes], ParcelHead]


class MailHandlers:
    """One method per RPC of MailService."""

    def __init__(
        self,
        runtime: Runtime,
        self_id: str,
        directory: Callable[[], Directory],
        verify: Verifier,
        letters: Letters,
        jobs: MailedJobs,
    ) -> None:
        self._runtime, self._self_id, self._directory = runtime, self_id, directory
        self._verify, self._letters, self._jobs = verify, letters, jobs

    # ---- from this node's owner

    def send_mail(self, caller: Caller, request: mail_pb2.SendMailRequest) -> Ticket:
        digest, directory = digest_of_request(request), self._directory()
        destination = directory.resolve(request.node)
        if destination == self._self_id:
            raise InvalidRequest.field("node", "it is this node itself; mail is for others")
        if not 0 <= request.expires_in_ms <= EXPIRES_MS_MAX:
            text = f"{request.expires_in_ms}; 0 to {EXPIRES_MS_MAX} are allowed"
            raise InvalidRequest.field("expires_in_ms", text)
        method, body, subject = _content(request)
        mailed = mail_pb2.MailedRequest(method=METHOD_NUMBERS[method], body=body.SerializeToString(deterministic=True))
        content = mail_pb2.MailContent(request=mailed).SerializeToString(deterministic=True)
        key = directory.current_key(destination)
        assert key is not None, "a member has a key"
        sealed = self._letters.seal(key, letter_context(self._self_id, destination), content)
        if len(sealed) > SEALED_BYTES_MAX:
            text = f"{len(sealed)} bytes when sealed; at most {SEALED_BYTES_MAX} are allowed"
            raise InvalidRequest.field(request.WhichOneof("content") or "content", text)
        command = commands.SendMail(
            destination, method, subject, sealed, request.expires_in_ms * 1_000, request.request_id, digest
        )
        return self._ask(caller, command, request)

    def get_mail(self, caller: Caller, request: mail_pb2.GetMailRequest) -> Message:
        value = self._runtime.store.get(OUTBOX, number_key(request.number)) if 0 < request.number < 1 << 64 else None
        if value is None:
            raise NotFound(f"this node has sent no mail {request.number}", reason="MailNotFound")
        mail = mail_pb2.Mail.FromString(value)
        found = mail_pb2.GetMailResponse(mail=mail)
        if mail.response and mail.method == TAKE_MESSAGE:
            found.message.ParseFromString(mail.response)
        elif mail.response and mail.method == TAKE_JOB:
            found.job.ParseFromString(mail.response)
        if mail.fault:
            fault = fault_from_bytes(mail.fault)
            found.reason, found.detail = fault.reason, fault.message
        return found

    def list_mail(self, caller: Caller, request: mail_pb2.ListMailRequest) -> Message:
        """By number, which is the order in which it was sent."""
        position, scan = decode_token(request.page_token), self._runtime.store.scan
        if request.newest_first:
            rows = scan(OUTBOX, end=position and position + b"\0", reverse=True)
        else:
            rows = scan(OUTBOX, position)
        mail, token = take_page(((key, _without_answer(value)) for key, value in rows), request.page_size)
        return mail_pb2.ListMailResponse(mail=mail, next_page_token=token)

    def list_messages(self, caller: Caller, request: mail_pb2.ListMessagesRequest) -> Message:
        """In the order in which they came."""
        found = [mail_pb2.MessageRow.FromString(value) for _, value in self._runtime.store.scan(MESSAGES)]
        position = decode_token(request.page_token)
        rows = [(number_key(row.order), row.message) for row in sorted(found, key=lambda row: row.order)]
        if request.newest_first:
            rows = [row for row in reversed(rows) if not position or row[0] <= position]
        else:
            rows = [row for row in rows if row[0] >= position]
        messages, token = take_page(rows, request.page_size)
        return mail_pb2.ListMessagesResponse(messages=messages, next_page_token=token)

    def read_message(self, caller: Caller, request: mail_pb2.ReadMessageRequest) -> Ticket:
        return self._ask(caller, commands.MarkRead(request.message_id), request)

    def delete_message(self, caller: Caller, request: mail_pb2.DeleteMessageRequest) -> Ticket:
        return self._ask(caller, commands.DeleteMessage(request.message_id), request)

    def get_mailbox(self, caller: Caller, request: mail_pb2.GetMailboxRequest) -> Message:
        rows = self._runtime.store.scan(HELD, decode_token(request.page_token))
        parcels, token = take_page(((key, _held(key, value)) for key, value in rows), request.page_size)
        count, used, limit = self._runtime.machine("mail", MailMachine).held
        return mail_pb2.GetMailboxResponse(
            parcels=parcels, next_page_token=token, used_bytes=used, limit_bytes=limit, count=count
        )

    # ---- between nodes

    def deposit_parcel(self, caller: Caller, request: mail_pb2.DepositParcelRequest) -> Ticket:
        """Raises PermissionDenied (NotYours) for another's: custody is one hop, and each source has its own room."""
        head = self._verified(request.parcel, verify_parcel)
        if head.source != caller.node_id:
            raise PermissionDenied(f"{caller.node_id} deposits a parcel of {head.source}", reason="NotYours")
        if head.destination == self._self_id:
            raise InvalidRequest.field("parcel", "it is for this node; deliver it")
        if not self._directory().is_member(head.destination):
            raise NotFound(f"{head.destination} is no member of this mesh", reason="NotAMember")
        return self._ask(caller, commands.DepositParcel(head, request.parcel), request)

    def deliver_parcel(self, caller: Caller, request: mail_pb2.DeliverParcelRequest) -> Ticket:
        is_offer = not request.parcel.sealed
        head = self._verified(request.parcel, verify_head if is_offer else verify_parcel)
        if head.destination != self._self_id:
            raise InvalidRequest.field("parcel", f"it is for {head.destination}, this is {self._self_id}")
        if not self._directory().is_member(head.source):
            raise PermissionDenied(f"{head.source} is no member of this mesh", reason="NotAMember")
        if is_offer:
            return self._ask(caller, commands.OfferParcel(head), request)
        content = opened(self._letters, head, request.parcel.sealed)
        answer = content.answer if content is not None and content.WhichOneof("content") == "answer" else None
        return self._ask(caller, commands.DeliverParcel(head, request.parcel, answer, caller.node_id), request)

    def drop_parcels(self, caller: Caller, request: mail_pb2.DropParcelsRequest) -> Ticket:
        if len(request.numbers) > DROPS_MAX:
            text = f"{len(request.numbers)} numbers; at most {DROPS_MAX} are allowed in one call"
            raise InvalidRequest.field("numbers", text)
        return self._ask(caller, commands.DropParcels(caller.node_id, tuple(request.numbers)), request)

    # ---- what mail is for

    def take_message(self, caller: Caller, request: mail_pb2.TakeMessageRequest) -> Ticket:
        _check_message("", request)
        if not check_request_id(request.request_id):
            raise InvalidRequest.field("request_id", "must not be empty: by it a message is taken once")
        command = commands.TakeMessage(caller.node_id, request.name, request.data, request.request_id)
        return self._ask(caller, command, request)

    def take_job(self, caller: Caller, request: mail_pb2.TakeJobRequest) -> Ticket:
        return self._jobs.take(caller, request)

    # ---- inside

    def _verified(self, parcel: mail_pb2.Parcel, check: Check) -> ParcelHead:
        """Signed by its source. Raises PeerFault."""
        directory = self._directory()
        head = ParcelHead.decode(parcel.head.body)
        return check(parcel, directory.keys(head.source), self._verify, directory.salt)

    def _ask(self, caller: Caller, command: object, request: Message) -> Ticket:
        return self._runtime.ask("mail", str(caller), command, size_bytes=request.ByteSize())


def opened(letters: Letters, head: ParcelHead, sealed: bytes) -> mail_pb2.MailContent | None:
    """What is in a parcel for this node; None for what does not open, or is no content."""
    try:
        text = letters.open(sealed, letter_context(head.source, head.destination))
        return mail_pb2.MailContent.FromString(text)
    except (Fault, DecodeError):
        return None


def _content(request: mail_pb2.SendMailRequest) -> tuple[str, Message, str]:
    """The method, its request, and what it is about. Raises InvalidRequest."""
    match request.WhichOneof("content"):
        case "message":
            if request.message.request_id:
                _filled_in("message")
            _check_message("message.", request.message)
            return TAKE_MESSAGE, request.message, request.message.name or _beginning(request.message.data)
        case "job":
            if request.job.request_id:
                _filled_in("job")
            check_mailed("job.", request.job)
            return TAKE_JOB, request.job, f"job {request.job.job.payload.WhichOneof('executor') or ''}"
        case _:
            raise InvalidRequest.field("content", "a message or a job is needed")


def _filled_in(field: str) -> NoReturn:
    raise InvalidRequest.field(f"{field}.request_id", "is filled in at its destination; use the one of SendMail")


def _check_message(field: str, message: mail_pb2.TakeMessageRequest) -> None:
    check_text(f"{field}name", message.name, NAME_CHARS_MAX, empty=True)
    if len(message.data) > MESSAGE_BYTES_MAX:
        text = f"{len(message.data)} bytes; at most {MESSAGE_BYTES_MAX} are allowed"
        raise InvalidRequest.field(f"{field}data", text)


def _beginning(data: bytes) -> str:
    """Of a text, in one line."""
    text = " ".join(data[: 4 * SUBJECT_CHARS_MAX].decode("utf-8", "replace").split())
    return text if len(text) <= SUBJECT_CHARS_MAX else f"{text[: SUBJECT_CHARS_MAX - 1]}…"


def _without_answer(value: bytes) -> mail_pb2.Mail:
    mail = mail_pb2.Mail.FromString(value)
    mail.ClearField("response")
    mail.ClearField("fault")
    return mail


def _held(key: bytes, value: bytes) -> mail_pb2.HeldParcel:
    row, (source, number) = mail_pb2.HeldRow.FromString(value), parcel_of(key)
    head = ParcelHead.decode(row.parcel.head.body)
    return mail_pb2.HeldParcel(
        source=source,
        destination=head.destination,
        number=number,
        size_bytes=head.size_bytes,
        held_us=row.held_us,
        until_us=row.until_us,
    )
