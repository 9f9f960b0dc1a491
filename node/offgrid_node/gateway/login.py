"""`POST /v1/login` and `POST /v1/logout`: a browser shows the token once, or the code of a link, and gets a cookie.

The cookie is not the token, no script can read it, and no other site's page can have it sent (HttpOnly, SameSite).
Where there is no token, everybody who gets as far as here is signed in already; others are told why they do not.
"""

from __future__ import annotations

import json
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.metered import REFUSED
from offgrid_node.gateway.sign_ins import SESSION_MS, SignIns
from offgrid_node.protocol.clock import Clock
from offgrid_node.protocol.errors import InvalidRequest

_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Strict"


def login_routes(sign_ins: SignIns | None, clock: Clock) -> list[BaseRoute]:
    async def login(request: Request) -> Response:
        """{"token": …} or {"code": …}: 204 and the cookie."""
        said = _read(await request.body())
        if sign_ins is None:
            return _done()
        peer, now_ms = request.client.host if request.client else "", clock.now().mono_ms
        by_code = "code" in said
        sign_in = sign_ins.sign_in_by_code if by_code else sign_ins.sign_in
        made = sign_in(said["code" if by_code else "token"], peer, now_ms)
        if isinstance(made, Refusal):
            request.scope[REFUSED] = made.reason
            return made.response
        return _done(f"{sign_ins.cookie}={made}; Max-Age={SESSION_MS // 1000}; {_ATTRIBUTES}")

    async def logout(request: Request) -> Response:
        if sign_ins is None:
            return _done()
        if value := request.cookies.get(sign_ins.cookie):
            sign_ins.sign_out([value])
        return _done(f"{sign_ins.cookie}=; Max-Age=0; {_ATTRIBUTES}")

    return [Route("/v1/login", login, methods=["POST"]), Route("/v1/logout", logout, methods=["POST"])]


def _read(body: bytes) -> dict[str, str]:
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        said = None
    whole = isinstance(said, dict) and set(said) in ({"token"}, {"code"})
    if not whole or not all(isinstance(value, str) for value in said.values()):
        raise InvalidRequest.field("body", 'has to be {"token": "…"}, or {"code": "…"} of a link')
    return dict(said)


def _done(cookie: str = "") -> Response:
    return Response(status_code=HTTPStatus.NO_CONTENT, headers={"Set-Cookie": cookie} if cookie else {})
