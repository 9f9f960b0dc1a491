"""What a browser holds open ends with its sign-in: feeds and streams, which would go on telling for days."""

from __future__ import annotations

import asyncio

from starlette.types import Scope

from offgrid_node.protocol.errors import PermissionDenied

SIGNED_OUT = "offgrid.signed_out"
"""In the scope of a request that came by a cookie: a coroutine function that returns once its session is over."""


async def signed_out(scope: Scope) -> PermissionDenied:
    """Returns, with what is told then, once the session is over by which this came; never of what came otherwise."""
    await scope.get(SIGNED_OUT, asyncio.Event().wait)()
    text = "this browser was signed out, or did nothing for too long: sign in again at /"
    return PermissionDenied(text, reason="SignedOut")
