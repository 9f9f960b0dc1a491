"""What the gateway's routes may know of the node and ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Set
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from google.protobuf.message import Message

from offgrid_node.discovery.gateways import About
from offgrid_node.protocol.errors import Fault
from offgrid_node.runtime import Runtime
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.router import Router

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.meters import Meters


class NodeView(msgspec.Struct, frozen=True):
    """`about` and `facts` are asked at each use; handlers are reached by `router`, in process and as an admin. Streams
    end once `stopping` is set: what is not through a second later is cut off.

    `unbound` has the same handlers for whatever roles this node has; `request` asks another member (node, method,
    request, timeout in milliseconds, and what is told the end), `asks_quickly` says of whom that costs next to nothing;
    `url` is the gateway's own as others reach it, empty where there is none; `folder` is the node's.
    """

    config: Config
    node_id: str
    router: Router
    runtime: Runtime
    facts: Callable[[], NodeFacts]
    about: Callable[[], About]
    meters: Meters
    unbound: Router
    own_roles: Callable[[], Set[int]]
    request: Callable[[str, str, Message, int, Callable[[Message | Fault], None]], None]
    asks_quickly: Callable[[str], bool]
    url: Callable[[], str]
    folder: Path
    stopping: asyncio.Event = msgspec.field(default_factory=asyncio.Event)
