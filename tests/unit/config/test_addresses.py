"""`host:port` and gateway URLs: what is taken, what is refused and what is proposed instead."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.config import BadAddress, split_address
from offgrid_node.config.addresses import HOST_CHARS_MAX, URL_CHARS_MAX, check_url


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("attic:1", "attic", 1),
        ("attic.lan.:65535", "attic.lan.", 65535),
        ("10.0.0.1:7440", "10.0.0.1", 7440),
        ("[::1]:7440", "::1", 7440),
        ("[fe80::1%eth0]:7440", "fe80::1%eth0", 7440),
        ("my_host-2:07", "my_host-2", 7),
    ],
)
def test_good_addresses(text: str, host: str, port: int) -> None:
    assert split_address(text) == (host, port)


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("", ""),
        (":7440", ""),
        ("attic", "attic:7440"),
        ("attic:", ""),
        ("attic:x", ""),
        ("attic:-1", ""),
        ("attic:0", ""),
        ("attic:65536", ""),
        ("attic:٣", ""),
        ("at tic:1", ""),
        ("-attic:1", ""),
        ("1.2.3:4", ""),
        ("1.2.3.4.5:6", ""),
        ("::1", "[::1]:7440"),
        ("::1:7440", "[::1]:7440"),
        ("a:1:2", ""),
        ("[::1]", "[::1]:7440"),
        ("[::1", ""),
        ("[", ""),
        ("[]:1", ""),
        ("[1.2.3.4]:1", ""),
        ("http://attic:22/x", "attic:22"),
        ("http://me:pw@attic:22", ""),
        ("http://[", ""),
        ("x" * (HOST_CHARS_MAX + 1) + ":1", ""),
    ],
)
def test_bad_addresses(text: str, suggestion: str) -> None:
    with pytest.raises(BadAddress) as caught:
        split_address(text)
    assert caught.value.suggestion == suggestion


def test_port_0_is_for_listening_only() -> None:
    assert split_address("attic:0", port_min=0) == ("attic", 0)


@pytest.mark.parametrize("text", ["http://a", "https://a.b:1/c/d", "http://[::1]:2", "HTTP://A/"])
def test_good_urls(text: str) -> None:
    check_url(text)


@pytest.mark.parametrize(
    ("text", "suggestion"),
    [
        ("", ""),
        ("http://", ""),
        ("attic:9000", "http://attic:9000"),
        ("ftp://a", ""),
        ("http://a:0", ""),
        ("http://a:99999", ""),
        ("http://a b", ""),
        ("http://a/\x00", ""),
        ("http://[::1", ""),
        ("http://[:x]", ""),
        ("http://a?x=1", ""),
        ("http://a#x", ""),
        ("http://me@a", ""),
        ("http://" + "a" * URL_CHARS_MAX, ""),
    ],
)
def test_bad_urls(text: str, suggestion: str) -> None:
    with pytest.raises(BadAddress) as caught:
        check_url(text)
    assert caught.value.suggestion == suggestion


@given(st.text("[]:/@%.a1 é", max_size=12))
def test_no_text_raises_anything_else(text: str) -> None:
    for check in (split_address, check_url):
        try:
            check(text)
        except BadAddress as bad:
            if bad.suggestion:
                check(bad.suggestion)
