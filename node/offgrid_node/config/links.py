"""The section `[links]`: what carries frames to other nodes beside gRPC."""

from __future__ import annotations

from pydantic import Field

from . import fields as f
from .sections import Section


class Links(Section):
    """Packet links, each described in one line (docs/links.md)."""

    open: f.LinkList = Field(
        default=(),
        description="packet links to other nodes, tried where gRPC does not reach them: "
        '["udp:*:7700?multicast=on", "ble:usb:0"]',
    )
    relay: bool = Field(default=True, description="hand on what other members say to each other over packet links")
