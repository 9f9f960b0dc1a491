"""Which addresses a node tells others."""

from __future__ import annotations

import ifaddr
import pytest

from offgrid_node.config.addresses import BadAddress
from offgrid_node.discovery.addresses import ADVERTISED_MAX, advertised, ip_addresses


def adapter(name: str, *ips: str) -> ifaddr.Adapter:
    found = [ifaddr.IP((ip, 0, 0) if ":" in ip else ip, 64 if ":" in ip else 24, name) for ip in ips]
    return ifaddr.Adapter(name, name, found)


LOOPBACK = adapter("lo", "127.0.0.1", "::1")
MACHINE = [
    LOOPBACK,
    adapter("docker0", "172.17.0.1"),
    adapter("usb0", "169.254.7.7"),
    adapter("eth0", "192.0.2.7", "fd00::7", "fe80::7"),
]


def test_every_ip4_address_is_told_real_networks_first() -> None:
    assert advertised("0.0.0.0:7440", adapters=lambda: MACHINE) == (
        "192.0.2.7:7440",
        "172.17.0.1:7440",
        "169.254.7.7:7440",
    )


def test_listening_on_ip6_tells_both_but_no_ip6_link_local() -> None:
    assert advertised("[::]:7440", adapters=lambda: MACHINE)[:2] == ("192.0.2.7:7440", "[fd00::7]:7440")
    assert not any("fe80" in address for address in advertised("[::]:7440", adapters=lambda: MACHINE))


def test_loopback_is_told_only_when_there_is_nothing_else() -> None:
    assert advertised("0.0.0.0:7440", adapters=lambda: [LOOPBACK]) == ("127.0.0.1:7440",)
    assert advertised("0.0.0.0:7440", adapters=lambda: [LOOPBACK, adapter("usb0", "169.254.7.7")]) == (
        "169.254.7.7:7440",
    )
    assert advertised("0.0.0.0:7440", adapters=list) == ()


def test_a_chosen_address_stands_for_itself_and_explicit_ones_win() -> None:
    assert advertised("[fd00::7]:7440", adapters=lambda: MACHINE) == ("[fd00::7]:7440",)
    assert advertised("0.0.0.0:7440", ["example.org:1"], adapters=lambda: MACHINE) == ("example.org:1",)


def test_not_too_many_are_told() -> None:
    crowd = [adapter("eth0", *(f"192.0.2.{n}" for n in range(1, 50)))]
    assert len(advertised("0.0.0.0:7440", adapters=lambda: crowd)) == ADVERTISED_MAX


def test_a_bad_listen_address_is_refused() -> None:
    with pytest.raises(BadAddress):
        advertised("192.0.2.7")


def test_mdns_tells_ip_addresses_only() -> None:
    assert ip_addresses(["192.0.2.7:1", "example.org:1", "[fd00::7]:1", "192.0.2.7:2"]) == ("192.0.2.7", "fd00::7")


def test_this_very_machine_has_an_address() -> None:
    assert all(address.endswith(":7440") for address in advertised("0.0.0.0:7440"))
