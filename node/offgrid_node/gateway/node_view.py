"""What the gateway's routes may know of the node and ask of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from offgrid_node.discovery.gateways import About
from offgrid_node.runtime import Runtime
from offgrid_node.services.mesh import NodeFacts
from offgrid_node.services.router import Router

if TYPE_CHECKING:
    from offgrid_node.config import Config
    from offgrid_node.meters import Meters


@dataclass(frozen=True, slots=True)
class NodeView:
    """`about` and `facts` are asked at each use; handlers are reached by `router`, in process and as an admin. Streams
    end once `stopping` is set: what is not through a second later is cut off."""

    config: Config
    node_id: str
    router: Router
    runtime: Runtime
    facts: Callable[[], NodeFacts]
    about: Callable[[], About]
    meters: Meters
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
