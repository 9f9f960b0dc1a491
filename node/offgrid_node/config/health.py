"""The section `[health]`: from where on figures are worth an alert, and who is told."""

from __future__ import annotations

import ipaddress
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator

from . import fields as f
from .sections import Section

_FIGURE_MAX = 10**9


class Health(Section):
    """What an operator is warned of: in `offgrid status`, metrics and the journal. A threshold of 0 is none."""

    interval_ms: int = Field(
        default=5_000,
        ge=100,
        le=3_600_000,
        description="how often it is looked, in milliseconds: three bad looks in a row begin an alert, six good ones "
        "end it",
    )
    queue_depth: int = Field(
        default=500,
        ge=0,
        le=_FIGURE_MAX,
        description="warn above: requests that wait in this node, events that wait in an application",
    )
    write_latency_ms: int = Field(
        default=50, ge=0, le=_FIGURE_MAX, description="warn above: the 99th percentile of the store's commits"
    )
    frame_us: int = Field(
        default=16_670,
        ge=0,
        le=_FIGURE_MAX,
        description="critical above: a frame of an application, in millionths of a second",
    )
    memory_mb: int = Field(
        default=4_096, ge=0, le=_FIGURE_MAX, description="warn above: memory of this node, of an application, in MiB"
    )
    database_warn_percent: int = Field(default=80, ge=0, le=100, description="warn above: of storage.limit_mb")
    database_critical_percent: int = Field(default=95, ge=0, le=100, description="critical above: of storage.limit_mb")
    objects_gone: int = Field(
        default=1,
        ge=0,
        le=_FIGURE_MAX,
        description="critical from so many on: objects of this node's that hosts in reach cannot give back",
    )
    objects_at_risk: int = Field(
        default=1,
        ge=0,
        le=_FIGURE_MAX,
        description="warn from so many on: objects that one more host lost may end, though they were to survive that",
    )
    objects_degraded: int = Field(
        default=0,
        ge=0,
        le=_FIGURE_MAX,
        description="warn from so many on: objects of which hosts in reach keep less than is wanted",
    )
    command: f.Argv = Field(
        default=(),
        description="is run where an alert's state changes, without a shell, with the alert as JSON on standard input: "
        '["/usr/local/bin/tell", "--quietly"]',
    )
    webhook_elsewhere: bool = Field(default=False, description="the webhook may be on another machine")
    webhook: f.OptionalUrl = Field(
        default="",
        validate_default=True,
        description="gets the same JSON by POST; on this machine: http://127.0.0.1:9093/alerts",
    )

    @field_validator("webhook")
    @classmethod
    def _check_webhook(cls, url: str, info: ValidationInfo) -> str:
        if url and not info.data.get("webhook_elsewhere") and not _is_here(urlsplit(url).hostname or ""):
            raise f.wrong("is on another machine, which health.webhook_elsewhere would allow")
        return url


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
