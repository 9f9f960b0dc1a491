"""How much one message of a peer may say: whatever it says ends up in rows, in the journal and on somebody's screen.

Each check raises InvalidRequest that names the field, below the `field` given.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs.large import INLINE_BYTES_MAX
from offgrid_node.protocol.jobs.orders import JobOrder

LOG_BYTES_MAX = 64 * 1024
MESSAGE_CHARS_MAX = 200  # of what a job says of how far it is
SEALED_BYTES_MAX = INLINE_BYTES_MAX + LOG_BYTES_MAX + 1024  # with all that sealing adds
MANIFEST_BYTES_MAX = 4_096
ID_CHARS_MAX = 64
WORD_CHARS_MAX = 64
LABEL_CHARS_MAX = 128  # a kind, an executor, a label's key or value
HELD_CHARS_MAX = 200  # a job id, a slash, an attempt
REFUSAL_CHARS_MAX = 256
DETAIL_CHARS_MAX = 2_000
OFFERS_BYTES_MAX = 256 * 1024  # of one word of a host
OFFER_LISTS_MAX = 1_024  # offers, executors, kinds, labels, owners and held attempts of one word
OFFERS_MAX = 256  # of one host: its rules, and for whom they are not
GPUS_MAX = 64
EXPIRY_MIN_MS, EXPIRY_MAX_MS = 1_000, 3_600_000
SLOTS_MAX = 1_024
PRICE_MAX = 10**15
TOKENS_MAX = 10**15  # of one job; sums of them, too, stay within what rows and receipts have room for
TIMEOUT_MS_MAX = 86_400_000
REQUIREMENTS_CHARS_MAX = 1_024
PRIORITY_MAX = 100
AVOID_MAX = 16  # nodes that an order names as not wanted

_JOB_ID = re.compile(rf"[A-Za-z0-9._-]{{1,{ID_CHARS_MAX}}}\Z")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")


def check_offers(request: jobs_pb2.PostOffersRequest) -> None:
    """What a host tells a broker, whole or in part."""
    if request.ByteSize() > OFFERS_BYTES_MAX:
        raise InvalidRequest.field("offers", f"{request.ByteSize()} bytes; at most {OFFERS_BYTES_MAX} are allowed")
    for name, held in (("held", request.held), ("released", request.released)):
        _texts(name, held, HELD_CHARS_MAX)
    _number("offers", len(request.offers), OFFERS_MAX)
    _number("withdrawn", len(request.withdrawn), OFFERS_MAX)
    for index, offer in enumerate(request.offers):
        check_offer(f"offers[{index}]", offer)
    if request.HasField("profile"):
        check_profile("profile", request.profile)


def check_offer(field: str, offer: jobs_pb2.Offer) -> None:
    if not 1 <= offer.offer_id <= OFFERS_MAX:
        raise InvalidRequest.field(f"{field}.offer_id", f"{offer.offer_id}; 1 to {OFFERS_MAX} are allowed")
    if not EXPIRY_MIN_MS <= offer.expiry_ms <= EXPIRY_MAX_MS:
        text = f"{offer.expiry_ms}; {EXPIRY_MIN_MS} to {EXPIRY_MAX_MS} are allowed"
        raise InvalidRequest.field(f"{field}.expiry_ms", text)
    _number(f"{field}.slots", offer.slots, SLOTS_MAX)
    _number(f"{field}.ask_micro", offer.ask_micro, PRICE_MAX)
    _texts(f"{field}.executors", offer.executors, LABEL_CHARS_MAX)
    _texts(f"{field}.kinds", offer.kinds, LABEL_CHARS_MAX)
    _texts(f"{field}.owners", offer.owners, ID_CHARS_MAX)
    _texts(f"{field}.barred", offer.barred, ID_CHARS_MAX)


def check_profile(field: str, profile: jobs_pb2.HostProfile) -> None:
    _number(f"{field}.slots", profile.slots, SLOTS_MAX)
    _number(f"{field}.gpus", len(profile.gpus), GPUS_MAX)
    _texts(f"{field}.gpus", [gpu.model for gpu in profile.gpus], LABEL_CHARS_MAX)
    for name, texts in (("models", profile.models), ("executors", profile.executors)):
        _texts(f"{field}.{name}", texts, LABEL_CHARS_MAX)
    for name, words in (("labels", profile.labels), ("isolation", profile.isolation)):
        _texts(f"{field}.{name}", list(words), LABEL_CHARS_MAX)
        _texts(f"{field}.{name}", list(words.values()), LABEL_CHARS_MAX)
    _texts(f"{field}.platform", [profile.platform], LABEL_CHARS_MAX)


def check_order(field: str, order: JobOrder) -> None:
    check_job_id(field, order.job_id)
    _check(
        field,
        ("kind", order.kind, LABEL_CHARS_MAX),
        ("needs", order.needs, LABEL_CHARS_MAX),
        ("requirements", order.requirements, REQUIREMENTS_CHARS_MAX),
    )
    if not -PRIORITY_MAX <= order.priority <= PRIORITY_MAX:
        text = f"{order.priority}; -{PRIORITY_MAX} to {PRIORITY_MAX} are allowed"
        raise InvalidRequest.field(f"{field}.priority", text)
    _number(f"{field}.size_tokens", order.size_tokens, TOKENS_MAX)
    _number(f"{field}.timeout_ms", order.timeout_ms, TIMEOUT_MS_MAX)
    _number(f"{field}.price_max_micro", order.price_max_micro, PRICE_MAX)
    _number(f"{field}.avoid", len(order.avoid), AVOID_MAX)


def check_clearing(field: str, clearing: jobs_pb2.Clearing) -> None:
    check_job_id(field, clearing.job_id)
    _check(
        field,
        ("host", clearing.host, ID_CHARS_MAX),
        ("detail", clearing.detail, DETAIL_CHARS_MAX),
    )
    _number(f"{field}.price_micro", clearing.price_micro, PRICE_MAX)


def check_price(field: str, price_micro: int) -> None:
    _number(field, price_micro, PRICE_MAX)


def check_report(field: str, report: jobs_pb2.AttemptReport) -> None:
    check_job_id(field, report.job_id)
    _check(field, ("job_id", report.job_id, ID_CHARS_MAX), ("error_detail", report.error_detail, DETAIL_CHARS_MAX))
    if report.error:
        _check(field, ("error", report.error, WORD_CHARS_MAX))
        if not _WORD.match(report.error):
            raise InvalidRequest.field(f"{field}.error", f"{report.error!r} is no word of A-Z a-z 0-9, a letter first")
    result = report.result
    said = result.output or result.log or result.output_object or result.files_object or result.files_digest
    if said or result.files or report.blob or report.files_blob or len(report.sealed) > SEALED_BYTES_MAX:
        _check_sizes(field, report)


def _check_sizes(field: str, report: jobs_pb2.AttemptReport) -> None:
    result = report.result
    for name, value, most in (
        ("sealed", report.sealed, SEALED_BYTES_MAX),
        ("blob", report.blob, MANIFEST_BYTES_MAX),
        ("files_blob", report.files_blob, MANIFEST_BYTES_MAX),
        ("result.output", result.output, 0),
        ("result.log", result.log, 0),
        ("result.output_object", result.output_object, 0),
        ("result.files", result.files, 0),
        ("result.files_object", result.files_object, 0),
        ("result.files_digest", result.files_digest, 0),
    ):
        if len(value) > most:
            text = f"at most {most} are allowed" if most else "none are allowed here: results come sealed"
            raise InvalidRequest.field(f"{field}.{name}", f"{len(value)} bytes; {text}")


def check_outcome(field: str, outcome: jobs_pb2.StartOutcome | jobs_pb2.ReportOutcome) -> None:
    check_job_id(field, outcome.job_id)
    _check(field, ("refusal", outcome.refusal, REFUSAL_CHARS_MAX))


def check_lease(field: str, lease: jobs_pb2.LeaseKey | jobs_pb2.ClosedLease) -> None:
    check_job_id(field, lease.job_id)


def check_job_id(field: str, job_id: str) -> None:
    """It is its core's own choice, and stands in keys of rows and on other people's screens."""
    if not _JOB_ID.match(job_id):
        text = f"{job_id[:ID_CHARS_MAX]!r}; 1 to {ID_CHARS_MAX} characters of A-Z a-z 0-9 . _ - are allowed"
        raise InvalidRequest.field(f"{field}.job_id", text)


def _check(field: str, *texts: tuple[str, str, int]) -> None:
    """Several of one message: no name is put together unless it is needed."""
    for name, text, most in texts:
        if len(text) > most:
            _text(f"{field}.{name}", text, most)


def _text(field: str, text: str, most: int) -> None:
    if len(text) > most:
        raise InvalidRequest.field(field, f"{len(text)} characters; at most {most} are allowed")


def _texts(field: str, texts: Sequence[str], most: int) -> None:
    if len(texts) > OFFER_LISTS_MAX:
        raise InvalidRequest.field(field, f"{len(texts)} entries; at most {OFFER_LISTS_MAX} are allowed")
    for text in texts:
        _text(field, text, most)


def _number(field: str, number: int, most: int) -> None:
    if number > most:
        raise InvalidRequest.field(field, f"{number}; at most {most} are allowed")
