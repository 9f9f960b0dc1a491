"""What `offgrid-node join` looks at before and after it asks: room on the disk, ports, multicast, the inviter's clock,
and whether somebody else already is this node.

What keeps the node from running is refused before the door has spent the invite. The rest is said, with what to do:
clocks off the grid lie, and nothing here depends on them.
"""

from __future__ import annotations

import errno
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from offgrid.v1 import mesh_pb2
from offgrid_node.doctor.clock import NOTABLE_US, off_by, shown
from offgrid_node.doctor.findings import State
from offgrid_node.doctor.lan import FIREWALL, Heard, ask_by_multicast, own_ips
from offgrid_node.doctor.meeting import meet
from offgrid_node.doctor.ports import next_free, taken
from offgrid_node.doctor.room import disks
from offgrid_node.keys import NodeKey
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, Fault, PermissionDenied, Unavailable

if TYPE_CHECKING:
    from offgrid_node.config import Config

Say = Callable[[str], None]
PEEKS_MAX = 8
_NOBODY, _CAUSE = "failed to connect to all addresses", re.compile(r" \(\d+\)$")
LISTEN_S = 0.6
ASK_AGAIN = "`offgrid mesh invite`, at a machine that is a member, makes another"
REMEDIES: Mapping[str, str] = {
    "InviteRefused": "It was made by another node, is too old, or was typed wrong. " + ASK_AGAIN,
    "InviteUsed": ASK_AGAIN,
    "NameTaken": "Choose another: --name NAME",
    "WrongMesh": "Somebody else is in between, or the token is of another mesh. " + ASK_AGAIN,
}


def check_room(config: Config, say: Say) -> None:
    """Raises Unavailable (reason DiskFull) where the node could keep nothing."""
    for said in disks(config):
        if said.state is State.FAULT:
            raise Unavailable(f"{said.sentence}. Make room, or choose another folder: --dir", reason="DiskFull")
        say(said.sentence)


def free_ports(config: Config, given: Mapping[str, object], say: Say) -> dict[str, str]:
    """Other addresses for those that are taken, by key. Raises FailedPrecondition (reason AddressInUse) for one that
    was asked for."""
    instead = dict[str, str]()
    for key, said in taken(config):
        free = next_free(config, key, instead.values())
        if key in given or not free:
            advice = f"; {free} is free: --set {key}={free}" if free else ""
            raise FailedPrecondition(f"{said.sentence}{advice}", reason="AddressInUse")
        instead[key] = free
        say(f"{said.sentence}; this node takes {free}")
    return instead


class Multicast:
    """Whether mDNS passes here, and who is heard: tried on a thread while the joiner goes on."""

    def __init__(self, config: Config) -> None:
        self._trouble, self._heard = "", Heard()
        ips = [ip for ip in own_ips() if not ip.startswith("127.")] if config.mesh.mdns else []
        self._thread = threading.Thread(target=self._try, args=(ips,), daemon=True) if ips else None
        if self._thread is not None:
            self._thread.start()

    def trouble(self) -> str:
        """What is the matter with it, "" where nothing is. Waits for that."""
        if self._thread is not None:
            self._thread.join()
        return self._trouble

    def addresses_of(self, node_id: str) -> Sequence[str]:
        """ "host:port" where somebody says that he is that node. Waits for it, too."""
        self.trouble()
        return sorted(self._heard.nodes.get(node_id, ()))

    def _try(self, ips: list[str]) -> None:
        try:
            heard = self._heard = ask_by_multicast(ips, LISTEN_S)
        except OSError as error:
            self._trouble = f"mDNS does not work here: {error.strerror or error}"
            return
        if heard.refused == os.strerror(errno.ENETUNREACH):
            self._trouble = "this machine is in no network: ip address"
        elif heard.refused:
            self._trouble = f"mDNS cannot be sent here ({heard.refused}): {FIREWALL}"
        elif not heard.own:
            self._trouble = f"mDNS is not let in here (UDP port 5353): {FIREWALL}"


def plainly(message: str) -> str:
    """gRPC's words of a connection that failed, cut down to the system's."""
    return _CAUSE.sub("", message.rpartition(": ")[2]).lower() if message.startswith(_NOBODY) else message


def sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def explained(fault: Fault) -> Fault:
    """A door's refusal, with what to do about it."""
    if (remedy := REMEDIES.get(fault.reason)) is None:
        return fault
    kind = type(fault) if isinstance(fault, AlreadyExists | PermissionDenied) else FailedPrecondition
    return kind(f"{fault.message}. {remedy}", reason=fault.reason, metadata=fault.metadata)


def clock_remarks(own_us: int, grant: mesh_pb2.JoinGrant) -> Iterable[str]:
    """`own_us` is when the grant came, by this machine's clock. Doors of before say nothing of theirs."""
    ahead_us = own_us - grant.clock_us
    if grant.clock_us and abs(ahead_us) > NOTABLE_US:
        how = "ahead of" if ahead_us > 0 else "behind"
        inviters = shown(grant.clock_us)
        yield (
            f"this machine's clock is {off_by(ahead_us)} {how} the inviter's, which shows {inviters}. If this one is "
            f"wrong: sudo date -u -s '{inviters.removesuffix(' UTC')}'"
        )


def check_alone(key: NodeKey, addresses: Iterable[str]) -> None:
    """Raises FailedPrecondition (reason IdentityInUse) where a process with this very key answers at one of these
    addresses: a copy of this folder."""
    for address in list(addresses)[:PEEKS_MAX]:
        if meet(address)[1] == key.node_id:
            raise FailedPrecondition(
                f"a node with this folder's key runs at {address}: was its folder copied? Take another folder, which "
                "gets a key of its own: offgrid-node join TOKEN --dir ANOTHER-FOLDER",
                reason="IdentityInUse",
            )
