"""The section `[mail]`: what is sent to members that are away, and held for others."""

from __future__ import annotations

from pydantic import Field

from . import fields as f
from .sections import Section


class Mail(Section):
    """Mail: requests for members that are away."""

    mailbox_mb: int = Field(
        default=16,
        ge=0,
        le=4096,
        description="room for parcels of others until their destination comes by, in MiB; 0: this node holds none",
    )
    max_days: int = Field(
        default=7, ge=1, le=366, description="how long mail is tried, and parcels of others are held, in days"
    )
    jobs_from: f.Senders = Field(
        default=(),
        description="members whose jobs this core takes by mail and pays for, by name or id; empty: nobody's",
    )
