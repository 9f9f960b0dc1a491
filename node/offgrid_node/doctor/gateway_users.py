"""Who else may use the gateway of a node that asks for no token: other users of the machine, where the system does not
tell whose program a connection is (macOS, Windows)."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from offgrid_node.config.http_ports import OFF
from offgrid_node.doctor.findings import Check, Said, not_applicable, warning
from offgrid_node.doctor.subject import Subject
from offgrid_node.gateway.socket_owner import trusted_uids

SHOWN_MAX = 3
HOMES = ("/Users/", "/home/")
NOBODY = frozenset({"public", "default", "default user", "all users", "defaultuser0", "guest", "shared"})


def _gateway_users(subject: Subject) -> Iterator[Said]:
    gateway = subject.config.gateway
    if gateway.listen == OFF:
        yield not_applicable('gateway.listen = "off"')
    elif not gateway.token.get_secret_value() and trusted_uids() is None and (others := other_users()):
        shown = f"{', '.join(others[:SHOWN_MAX])}{', …' * (len(others) > SHOWN_MAX)}"
        yield warning(
            f"other users of this machine ({shown}) may do at the gateway what its owner may, as this system does not "
            "tell whose program asks: set gateway.token, and start the node anew",
            new_token(subject.path / ".env"),
        )


def other_users() -> list[str]:
    """Names of people besides this one who have a home on this machine."""
    if sys.platform == "win32":
        homes = Path.home().parent
        return named(each.name for each in homes.iterdir() if each.is_dir() and each != Path.home())
    import pwd

    others = (each for each in pwd.getpwall() if each.pw_uid != os.geteuid())
    return named(each.pw_name for each in others if each.pw_dir.startswith(HOMES) and Path(each.pw_dir).is_dir())


def named(users: Iterator[str]) -> list[str]:
    """In order, without those that are nobody's."""
    return sorted({each for each in users if each.lower() not in NOBODY})


def new_token(env: Path) -> str:
    """The command that puts one into the node's .env."""
    if sys.platform == "win32":
        return f'Add-Content "{env}" "OFFGRID_GATEWAY__TOKEN=$(New-Guid)"'
    return f"printf 'OFFGRID_GATEWAY__TOKEN=%s\\n' \"$(openssl rand -hex 16)\" >> '{env}'"


CHECKS = (Check("gateway-users", "nobody else on this machine may use the gateway", _gateway_users),)
