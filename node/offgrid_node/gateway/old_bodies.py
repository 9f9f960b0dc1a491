"""What comes with a request to one of the prototype's paths: its body, who vouches for it, and its query."""

from __future__ import annotations

import json
import math
from typing import Any

from starlette.requests import Request

from offgrid.v1 import jobs_pb2
from offgrid_node.gateway.old_payloads import Said, number_in
from offgrid_node.gateway.requests import read_aside
from offgrid_node.gateway.signature_guard import SignatureGuard
from offgrid_node.gateway.signed_requests import (
    NESTING_MAX,
    TIME_RULE,
    read_object,
    utc_us_of,
)
from offgrid_node.protocol.errors import InvalidRequest

INTEGER_DIGITS_MAX = 20
WAIT_S_MAX = 300.0
ORDERS = {"": False, "oldest": False, "asc": False, "newest": True, "desc": True}
"""Whether the newest come first."""


class Bodies:
    """Reads them, once the guard has let them in."""

    def __init__(self, guard: SignatureGuard) -> None:
        self._guard = guard

    async def read(self, request: Request, *, between_machines: bool = False) -> Said:
        """The body's JSON object; none is an empty one. Raises InvalidRequest, and what the guard raises."""
        body = await request.body()
        await self._guard.admit(request.scope, body, between_machines=between_machines)
        return await read_aside(body, _read)


def _read(body: bytes) -> Said:
    return read_plain(body) if body.strip() else {}


def read_plain(body: bytes) -> dict[str, Any]:
    """With numbers that count. Raises InvalidRequest for what is no JSON object, and for what no program could have
    meant."""
    read = read_object(body, _number, _float)
    _check_depth(read, NESTING_MAX)
    try:
        json.dumps(read, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidRequest("the body holds half a surrogate pair", reason="MalformedRequest") from None
    return read


def _number(text: str) -> float:
    return int(text) if len(text) < INTEGER_DIGITS_MAX else _float(text)


def _float(text: str) -> float:
    if math.isfinite(number := float(text)):
        return number
    raise InvalidRequest(f"the body holds a number above all numbers: {text[:20]}…", reason="MalformedRequest")


def _check_depth(value: Any, left: int) -> None:
    if left < 0:
        raise InvalidRequest(f"the body is nested deeper than {NESTING_MAX}", reason="MalformedRequest")
    for item in value.values() if isinstance(value, dict) else value:
        if isinstance(item, dict | list):
            _check_depth(item, left - 1)


class Query:
    """The query's parameters, each read as what it is. Raises InvalidRequest naming it."""

    def __init__(self, request: Request) -> None:
        self._given = request.query_params

    def text(self, name: str) -> str:
        return self._given.get(name, "")

    def words(self, *names: str) -> list[str]:
        """All that is said under these names; several may stand in one, with commas between them."""
        said = [value for name in names for value in self._given.getlist(name)]
        return [word.strip() for value in said for word in value.split(",") if word.strip()]

    def limit(self, usual: int, most: int) -> int:
        return round(number_in({"limit": self._given.get("limit") or usual}, "limit", low=1.0, high=most))

    def wait_s(self, usual: float) -> float:
        return number_in({"wait": self._given.get("wait", min(usual, WAIT_S_MAX))}, "wait", high=WAIT_S_MAX)

    def time_us(self, name: str) -> int:
        """0 when it is not given."""
        text = self.text(name)
        if not text:
            return 0
        at_us = utc_us_of(text)
        if at_us is None:
            raise InvalidRequest.field(name, f"{text[:64]!r} is no time; allowed: {TIME_RULE}")
        return at_us

    def states(self) -> list[jobs_pb2.JobState.ValueType]:
        """Of `status`: completed, running, …"""
        known = {name.removeprefix("JOB_STATE_").lower(): state for name, state in jobs_pb2.JobState.items() if state}
        words = [word.lower() for word in self.words("status")]
        for word in words:
            if word not in known:
                raise InvalidRequest.field("status", f"{word[:64]!r}; allowed: {', '.join(known)}")
        return [known[word] for word in words]

    @property
    def newest_first(self) -> bool:
        order = self.text("order")
        if order.lower() not in ORDERS:
            raise InvalidRequest.field("order", f"{order[:64]!r}; allowed: oldest, newest")
        return ORDERS[order.lower()]

    @property
    def page_token(self) -> str:
        return self.text("page_token")
