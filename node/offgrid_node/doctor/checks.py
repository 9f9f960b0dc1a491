"""All that is looked at, in the order in which it is told: what a start needs first, then the running node."""

from __future__ import annotations

from offgrid_node.doctor import (
    clock,
    company,
    devices,
    files,
    gateway_users,
    lan,
    live,
    machine,
    names,
    ports,
    rights,
    room,
    work,
)
from offgrid_node.doctor.findings import Check

CHECKS: tuple[Check, ...] = (
    *rights.CHECKS,
    *files.CHECKS,
    *room.CHECKS,
    *machine.CHECKS,
    *ports.CHECKS,
    *gateway_users.CHECKS,
    *clock.CHECKS,
    *lan.CHECKS,
    *names.CHECKS,
    *devices.CHECKS,
    *work.CHECKS,
    *company.CHECKS,
    *live.CHECKS,
)
