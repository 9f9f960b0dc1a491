"""What the gateway counts: its requests by method, route and class of status, how soon their answers began, what is
open, whom it did not let in, and who still asks by the prototype's paths.

A route is the template of a path, "none" where nothing was found or nobody was let in: paths never become labels.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum

from offgrid_node.meters.instruments import OTHER, Counter, Histogram

ANSWER_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
NO_ROUTE = "none"
GUESSES = ("TokenWrong", "TooManyTries", "SignatureInvalid")  # there from the start: a first one is an increase


class Kind(StrEnum):
    """What a request is while it is open: a stream is an answer without an end that is known as it begins."""

    REQUEST = "request"
    STREAM = "stream"
    WEBSOCKET = "websocket"


class HttpMeters:
    """Of one node."""

    def __init__(self) -> None:
        self.requests = Counter(
            "offgrid_http_requests_total",
            "Requests to the gateway that ended, by class of status (5xx: a defect, or what is not there now).",
            ("method", "route", "status"),
        )
        self.answer_time = Histogram(
            "offgrid_http_answer_duration_seconds",
            "From a request's head to the beginning of its answer.",
            ANSWER_S,
            ("method", "route"),
        )
        self.refused = Counter(
            "offgrid_http_refused_total",
            "Requests that the gateway did not let in, wrong tokens and signatures among them, by the error's reason.",
            ("reason",),
        )
        for reason in GUESSES:
            self.refused.add(reason, count=0)
        self.old_paths = Counter(
            "offgrid_old_path_requests_total", "Requests by a path of the prototype's.", ("method", "route")
        )
        self.old_path_last_s = 0.0
        self.open = dict.fromkeys(Kind, 0)

    @property
    def instruments(self) -> tuple[Counter | Histogram, ...]:
        return tuple(value for value in vars(self).values() if isinstance(value, Counter | Histogram))

    def open_now(self) -> Iterator[tuple[str, int]]:
        return iter(self.open.items())

    def on_begun(self, method: str, route: str, took_s: float) -> None:
        """An answer's head leaves."""
        self.answer_time.add(took_s, _method(method), route)

    def on_ended(self, method: str, route: str, status: int, reason: str) -> None:
        """`status` 0: the client went before there was one; `reason`: of a refusal, else ""."""
        self.requests.add(_method(method), route, f"{status // 100}xx" if status else "gone")
        if reason:
            self.refused.add(reason)

    def on_old_path(self, method: str, route: str, at_s: float) -> None:
        self.old_paths.add(_method(method), route)
        self.old_path_last_s = at_s


def _method(said: str) -> str:
    return said if said in METHODS else OTHER
