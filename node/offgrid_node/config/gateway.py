"""The section `[gateway]`: where people's tools and browsers reach this node over HTTP, and what opens it to them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from . import fields as f
from .addresses import LISTEN_RULE, BadAddress, split_address
from .fields import Allowed
from .http_ports import AUTO, OFF, PORTS_MORE, SECRET_CHARS_MIN
from .problems import shown
from .sections import Section

TOKEN_CHARS_MAX = 512
TOKEN_RULE = f'{SECRET_CHARS_MIN} to {TOKEN_CHARS_MAX} of A-Z a-z 0-9 - . _ ~ + / =; "" = none'
_TOKEN = re.compile(rf"[A-Za-z0-9._~+/=-]{{{SECRET_CHARS_MIN},{TOKEN_CHARS_MAX}}}\Z")  # RFC 6750, 2.1


def _listen(text: str) -> str:
    if text in (AUTO, OFF):
        return text
    try:
        split_address(text, port_min=0)
    except BadAddress as bad:
        raise f.wrong(f"is {shown(text)}, which {bad.message}", bad.suggestion and f'"{bad.suggestion}"') from None
    return text


def _token(secret: SecretStr) -> SecretStr:
    text = secret.get_secret_value()
    if text and not _TOKEN.match(text):
        short = len(text) < SECRET_CHARS_MIN
        raise f.wrong(f"has {len(text)} characters, soon guessed" if short else "is too long or has other characters")
    return secret


GatewayListen = Annotated[str, AfterValidator(_listen), Allowed(f'"auto", "off" or {LISTEN_RULE}')]
Token = Annotated[SecretStr, AfterValidator(_token), Allowed(TOKEN_RULE)]


class Gateway(Section):
    """HTTP for people: the web page, JSON for scripts, the paths of the prototype."""

    listen: GatewayListen = Field(
        default=AUTO,
        description="auto: 127.0.0.1 and the port of the first role: core 8001, host 8081, broker 9000, or the next "
        f"free of the {PORTS_MORE} after it; any address that other machines can reach needs a token",
    )
    token: Token = Field(
        default=SecretStr(""),
        description="who has it may do all that the owner may; better set by OFFGRID_GATEWAY__TOKEN. python3 -c "
        "'import secrets; print(secrets.token_urlsafe())' makes one",
    )
    hosts: f.Hosts = Field(
        default=(),
        description="names by which it is addressed, beyond addresses and localhost, as a guard for browsers",
    )
    kit: bool = Field(
        default=True,
        description="hand the node's install kit, if it has one, to whoever asks at /kit/: programs, and no secret",
    )
    auth_key: f.Secret = Field(
        default=SecretStr(""),
        description="secret with which clients of the prototype sign their requests; better set by OFFGRID_AUTH_KEY",
    )
