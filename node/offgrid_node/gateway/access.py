"""Which requests are let in, and why others are not. Pure: a request's head and a policy go in, an answer comes out.

Three questions, in this order; docs/security.md says against what each of them stands.

    is it this node that is meant     Host is an address, localhost or a name of gateway.hosts
    is it a person's own doing        Sec-Fetch-Site and Origin, where a browser sends them, are those of this very page
    who is it                         a token or its cookie, where there is a token, else a user of this machine who
                                      could open the owner's socket as well; some paths are open to all

Nothing here looks at a body: the signatures of the prototype's clients are checked by those who read it.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from http import HTTPStatus

import msgspec

from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.sign_ins import CHALLENGED, Session, SignIns

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
READS = frozenset({"GET", "HEAD"})
OPEN_TO_READ = frozenset({"/", "/favicon.ico", "/v1/about", "/announce", "/openapi.json", "/docs"})
OPEN_BELOW = ("/page/", "/docs/", "/kit/")
OPEN_TO_POST = frozenset({"/v1/login", "/v1/logout"})
SIGNED_BELOW = ("/api/", "/auction", "/run", "/toggle")
"""Where a signature does instead of the token, if there is a secret for it."""
DOCUMENTS = frozenset({"/", "/docs"})
DOCUMENTS_BELOW = ("/docs/",)
"""What links of other sites may lead to."""

_HOST = re.compile(r"(?P<name>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(?::(?P<port>[0-9]{1,5}))?\Z")
_DEFAULT_PORTS = {"http": 80, "https": 443}
_BLANKS = " \t"  # of a field's value (RFC 9110, 5.6.3); Python's are more
_OWN_SITES = ("same-origin", "none")  # none: typed, a bookmark, another program

Headers = Sequence[tuple[bytes, bytes]]


class Proof(Enum):
    """What a request that is let in has shown."""

    NONE = "nothing: none was asked for"
    TOKEN = "the token, or its cookie"  # noqa: S105 - says what, is none
    LATER = "nothing yet: it is let in as far as to where its signature is checked"


class Asked(msgspec.Struct, frozen=True):
    """The head of a request. `peer` is the address that it came from, `uid` whose program sends it, where that is asked
    for and known; `path` is decoded, headers are in lower case."""

    method: str
    path: str
    headers: Headers
    peer: str
    uid: int | None = None

    def all(self, name: bytes) -> list[str]:
        return [value.decode("latin-1").strip(_BLANKS) for key, value in self.headers if key == name]

    def one(self, name: bytes) -> str:
        return ", ".join(self.all(name))


class Policy(msgspec.Struct, frozen=True):
    """`hosts` are names besides localhost; `signed`: there is a secret for signatures; `sign_ins`: there is a token;
    `uids`: where there is none, the users of this machine who are let in (None: whoever asks)."""

    hosts: frozenset[str] = frozenset()
    signed: bool = False
    sign_ins: SignIns | None = None
    uids: frozenset[int] | None = None


def policy_of(
    hosts: Sequence[str],
    sign_ins: SignIns | None = None,
    *,
    signed: bool = False,
    uids: frozenset[int] | None = None,
) -> Policy:
    return Policy(frozenset(host.lower().rstrip(".") for host in hosts), signed, sign_ins, uids)


def asks_for_uid(method: str, path: str, policy: Policy) -> bool:
    """Whether it matters whose program sends this. Where there is no token, signing in is no way around it."""
    asks = policy.sign_ins is None and policy.uids is not None
    return asks and (method not in READS or not is_open(method, path))


def admit(asked: Asked, policy: Policy, now_ms: int) -> Proof | Refusal:
    """`now_ms` is of any clock that only goes forwards."""
    return check_host(asked, policy) or check_site(asked) or _identify(asked, policy, now_ms)


def session_of(asked: Asked, policy: Policy, now_ms: int) -> Session | None:
    """By whose cookie it is asked, if by one; it then goes on."""
    if policy.sign_ins is None or asked.all(b"authorization"):
        return None
    return policy.sign_ins.session_of(_cookies(asked, policy.sign_ins.cookie), now_ms)


def check_host(asked: Asked, policy: Policy) -> Refusal | None:
    """Whether it is this node that is addressed (RFC 9112, 3.2), against DNS rebinding."""
    said = asked.all(b"host")
    if len(said) != 1:
        return Refusal(HTTPStatus.BAD_REQUEST, "BadHost", f"{len(said)} Host headers; there has to be one")
    found = _HOST.match(said[0])
    if found and _is_ours(found["name"], policy.hosts):
        return None
    name = (found["name"] if found else said[0])[:100]
    mend = f' or set gateway.hosts = ["{name}"] (of metrics.listen: metrics.hosts)' if found else ""
    text = f"over HTTP this node is not asked by the name {name!r}: use its address or localhost,{mend}"
    return Refusal(HTTPStatus.FORBIDDEN, "UnknownHost", text)


def _is_ours(name: str, hosts: frozenset[str]) -> bool:
    if name.startswith("["):
        with suppress(ValueError):
            return bool(ipaddress.IPv6Address(name[1:-1]))
        return False
    name = name.lower().removesuffix(".")
    with suppress(ValueError):
        return bool(ipaddress.IPv4Address(name))
    return name == "localhost" or name in hosts


def check_site(asked: Asked) -> Refusal | None:
    """Whether another site has a browser ask (Fetch Metadata; RFC 6454). What sends neither header is no browser, or
    one whose requests from elsewhere lack the cookie."""
    origins, sites = asked.all(b"origin"), asked.all(b"sec-fetch-site")
    if origins and not (len(origins) == 1 and _same_origin(origins[0], asked.one(b"host"))):
        return _cross_site(f"a page of {', '.join(origins)[:100]}")
    if not sites or (len(sites) == 1 and sites[0] in _OWN_SITES):
        return None
    if asked.method in READS and asked.one(b"sec-fetch-mode") == "navigate" and _is_document(asked):
        return None
    return _cross_site("a page of another site")


def _is_document(asked: Asked) -> bool:
    whole_tab = asked.one(b"sec-fetch-dest") == "document"
    return whole_tab and (asked.path in DOCUMENTS or asked.path.startswith(DOCUMENTS_BELOW))


def _same_origin(origin: str, host: str) -> bool:
    scheme, _, place = origin.partition("://")
    default, theirs, ours = _DEFAULT_PORTS.get(scheme), _HOST.match(place), _HOST.match(host)
    if default is None or theirs is None or ours is None:
        return False
    return (theirs["name"].lower(), int(theirs["port"] or default)) == (
        ours["name"].lower(),
        int(ours["port"] or default),
    )


def _cross_site(who: str) -> Refusal:
    text = f"{who} may not ask this node for anything; open the node's own page, or ask from a program"
    return Refusal(HTTPStatus.FORBIDDEN, "CrossSite", text)


def _identify(asked: Asked, policy: Policy, now_ms: int) -> Proof | Refusal:
    sign_ins = policy.sign_ins
    if sign_ins is None:
        if not asks_for_uid(asked.method, asked.path, policy) or (policy.uids and asked.uid in policy.uids):
            return Proof.NONE
        return Proof.LATER if _is_signed(asked, policy) else _other_user(asked.uid)
    if session_of(asked, policy, now_ms):
        if asked.method in SAFE or asked.all(b"origin") or asked.all(b"sec-fetch-site"):
            return Proof.TOKEN
        text = "a request that changes something and brings the page's cookie needs an Origin, as browsers send it"
        return Refusal(HTTPStatus.FORBIDDEN, "OriginMissing", text)
    if is_open(asked.method, asked.path):
        return Proof.NONE  # whatever token it brings: none is tried here
    if tokens := asked.all(b"authorization"):
        scheme, _, token = tokens[0].partition(" ")
        right = len(tokens) == 1 and scheme.lower() == "bearer"
        return sign_ins.check_token(token.strip(_BLANKS) if right else "", asked.peer, now_ms) or Proof.TOKEN
    if _is_signed(asked, policy):
        return Proof.LATER
    return sign_ins.missing()


def _is_signed(asked: Asked, policy: Policy) -> bool:
    return policy.signed and asked.method not in SAFE and asked.path.startswith(SIGNED_BELOW)


def _other_user(uid: int | None) -> Refusal:
    mend = "set gateway.token in its offgrid.toml, and send that"
    if uid is None:
        text = f"which user of this machine asks could not be seen (sock_diag, /proc/net/tcp); ask again, or {mend}"
        return Refusal(HTTPStatus.UNAUTHORIZED, "UnknownUser", text, CHALLENGED)
    text = f"this node belongs to another user of this machine than yours (uid {uid}): ask as that user, or {mend}"
    return Refusal(HTTPStatus.UNAUTHORIZED, "OtherUser", text, CHALLENGED)


def is_open(method: str, path: str) -> bool:
    """Whether it is for those, too, who have no token."""
    if method in READS:
        return path in OPEN_TO_READ or path.startswith(OPEN_BELOW)
    return method == "POST" and path in OPEN_TO_POST


def _cookies(asked: Asked, name: str) -> list[str]:
    pairs = (part.strip(_BLANKS).partition("=") for said in asked.all(b"cookie") for part in said.split(";"))
    return [value for key, _, value in pairs if key == name]
