"""UDP links of two machines on one cable: they find each other by multicast of both families, and learn its MTU."""

from __future__ import annotations

import subprocess
import sys

from netns import NEEDS_ROOT, namespaces

from offgrid_tools.namespaces import IP, ip

pytestmark = NEEDS_ROOT

PROGRAM = """
import sys
from offgrid_transports import udp
from offgrid_transports.conformance.live import Live
from offgrid_transports.registry import TransportRegistry
from offgrid_transports.transport import BROADCAST

live = Live(TransportRegistry({"udp": udp.open_transport}))
end = live.open("udp:*:7700?multicast=on")
found = {}
for _ in range(400):
    end.send(BROADCAST, b"here")
    live.run(0.05)
    for address, _ in end.heard:
        found[address.startswith("[")] = address
    for address in found.values():
        end.send(address, b"there")
    lengths = {six: end.transport.mtu_bytes(address) for six, address in found.items()}
    if lengths == {False: 1472, True: 1452}:
        break
live.run(1)  # the other one may need echoes still
live.close()
sys.exit(0 if lengths == {False: 1472, True: 1452} else f"{found} {lengths}")
"""


def test_two_machines_find_each_other_and_what_their_cable_takes() -> None:
    with namespaces("one", "other") as spaces:
        ip("link", "add", "cable", "netns", spaces[0], "type", "veth", "peer", "name", "cable", "netns", spaces[1])
        for number, space in enumerate(spaces, 1):
            ip("-n", space, "link", "set", "cable", "addrgenmode", "none")
            ip("-n", space, "address", "add", f"10.78.0.{number}/24", "dev", "cable")
            ip("-n", space, "address", "add", f"fe80::{number}/64", "dev", "cable", "nodad")
            ip("-n", space, "link", "set", "cable", "up")
        ends = [
            subprocess.Popen(
                [IP, "netns", "exec", space, sys.executable, "-c", PROGRAM], stderr=subprocess.PIPE, text=True
            )
            for space in spaces
        ]
        said = [end.communicate(timeout=120)[1] for end in ends]
        assert [end.returncode for end in ends] == [0, 0], said
