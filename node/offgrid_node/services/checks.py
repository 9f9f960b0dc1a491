"""What handlers of several domains check of a request in the same words: texts for people, request ids."""

from __future__ import annotations

import re
import unicodedata

from google.protobuf.message import Message

from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.requests import request_digest

REQUEST_ID_CHARS_MAX = 64
REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]*\Z")
UNSEEN = {"Cc", "Cf", "Cs"}  # Unicode categories: they would reach terminals as escapes or turn text around
ALLOWED = "\n\t\u200c\u200d"  # the joiners belong to the spelling of Persian, of Indic scripts and of emoji


def check_text(field: str, value: str, most: int, *, empty: bool = False) -> str:
    """The text itself. Raises InvalidRequest for one that is too long, empty, or holds what cannot be seen."""
    if not value and not empty:
        raise InvalidRequest.field(field, f"must not be empty; 1 to {most} characters are allowed")
    if len(value) > most:
        raise InvalidRequest.field(field, f"{len(value)} characters; at most {most} are allowed")
    if any(unicodedata.category(char) in UNSEEN and char not in ALLOWED for char in value):
        raise InvalidRequest.field(field, "holds characters that cannot be seen (control or direction)")
    return value


def check_request_id(request_id: str) -> str:
    """The id itself, which may be empty. Raises InvalidRequest."""
    if len(request_id) > REQUEST_ID_CHARS_MAX or not REQUEST_ID.match(request_id):
        raise InvalidRequest.field(
            "request_id", f"at most {REQUEST_ID_CHARS_MAX} characters of A-Z a-z 0-9 . _ : - are allowed"
        )
    return request_id


def digest_of_request(request: Message) -> bytes:
    """What tells a repeated call from another one with the same `request_id`; empty without one. Checks the id."""
    return request_digest(request) if check_request_id(getattr(request, "request_id", "")) else b""
