"""Nodes that a config names by the HTTP URL of their gateway: who lives there, and where its mesh port is.

A gateway says so at ABOUT_PATH, as JSON. It is a hint as any other: nothing proves it but the TLS handshake with the
node that it names.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import msgspec

from offgrid_node.config import split_address
from offgrid_node.discovery.hints import ADDRESSES_MAX
from offgrid_node.logs import fields
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.ids import NODE_ID

ABOUT_PATH = "/v1/about"
ABOUT_BYTES_MAX = 16_384
TIMEOUT_S = 3.0
AT_ONCE = 8

_log = logging.getLogger(__name__)


class About(msgspec.Struct, frozen=True):
    """What a gateway says of its node: `addresses` are "host:port" of its mesh port."""

    node_id: str
    addresses: tuple[str, ...]
    name: str = ""
    version: str = ""

    def text(self) -> bytes:
        said = {
            "node_id": self.node_id,
            "name": self.name,
            "addresses": self.addresses[:ADDRESSES_MAX],
            "version": self.version,
        }
        return json.dumps(said).encode() + b"\n"


def parse_about(text: bytes) -> About:
    """Raises InvalidRequest naming the field."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        raise InvalidRequest.field("about", "is not JSON") from None
    if not isinstance(said, dict):
        raise InvalidRequest.field("about", "is not an object")
    node_id, addresses = said.get("node_id"), said.get("addresses")
    if not isinstance(node_id, str) or not NODE_ID.fullmatch(node_id):
        raise InvalidRequest.field("node_id", "is not a node id")
    if not isinstance(addresses, list) or not all(isinstance(address, str) for address in addresses):
        raise InvalidRequest.field("addresses", "is not a list of addresses")
    for address in addresses[:ADDRESSES_MAX]:
        try:
            split_address(address)
        except ValueError as error:
            raise InvalidRequest.field("addresses", f"{address[:64]!r}: {error}") from None
    return About(node_id, tuple(addresses[:ADDRESSES_MAX]))


class Gateways:
    """Those of one config. What a gateway has said counts until it says something else."""

    def __init__(self, named_in: str, urls: Sequence[str]) -> None:
        """`named_in`: what of the config names them, for people."""
        from http.client import HTTPException
        from urllib.request import ProxyHandler, build_opener  # two MiB for those who name gateways

        self._opener = build_opener(ProxyHandler({}))  # machines of one's own are not behind a proxy
        self._http_fault = HTTPException
        self._named_in = named_in
        self._urls = tuple(dict.fromkeys(url.rstrip("/") for url in urls))
        self._known: dict[str, About] = {}
        self._faults: dict[str, str] = {}

    @property
    def notices(self) -> tuple[str, ...]:
        """A sentence for each that has not told yet who it is."""
        return tuple(
            f"{self._named_in} = {url}: it does not say which node it is: {why}" for url, why in self._faults.items()
        )

    def ask(self) -> list[About]:
        """Whoever is known after asking all of them. Blocks, at most some seconds for every eight."""
        if self._urls:
            with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="gateways") as threads:
                list(threads.map(self._ask, self._urls))
        return self.known

    @property
    def known(self) -> list[About]:
        """What was said so far."""
        return list(self._known.values())

    def _ask(self, url: str) -> None:
        try:
            with self._opener.open(url + ABOUT_PATH, timeout=TIMEOUT_S) as answer:
                about = parse_about(answer.read(ABOUT_BYTES_MAX))
        except (OSError, self._http_fault, ValueError, InvalidRequest) as error:
            why = _words_of(error)
            if url not in self._known and self._faults.get(url) != why:
                _log.warning(
                    "a gateway does not say which node it is", extra=fields("gateway_unknown", url=url, why=why)
                )
                self._faults[url] = why
            return
        self._known[url] = about
        self._faults.pop(url, None)


def _words_of(error: Exception) -> str:
    cause = getattr(error, "reason", None) or error  # urllib wraps the system's errors
    said = getattr(error, "message", "") or getattr(cause, "strerror", None) or str(cause)
    return said or type(error).__name__
