"""Looks at everything at once, and waits for nothing longer than a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

from offgrid.client import OffgridError
from offgrid_node.doctor.findings import Check, Finding, Needs, State
from offgrid_node.doctor.subject import Subject
from offgrid_node.protocol.errors import Fault

DEADLINE_S = 4.0
LEAST_S = 1.0  # for the checks, where reading the config alone took the time that there was


def diagnose(path: Path, checks: Sequence[Check] = (), deadline_s: float = DEADLINE_S) -> tuple[Finding, ...]:
    """Of the node in the folder `path`, in the order of the checks; at least one finding for each of them."""
    from offgrid_node.doctor.checks import CHECKS

    ends = time.monotonic() + deadline_s
    subject = Subject(path)
    try:
        return examine(subject, checks or CHECKS, max(LEAST_S, ends - time.monotonic()))
    finally:
        subject.close()


def examine(subject: Subject, checks: Iterable[Check], deadline_s: float) -> tuple[Finding, ...]:
    """Each check on a thread of its own, which is left behind where it hangs: on a dead network disk, say."""
    ends, done = time.monotonic() + deadline_s, dict[str, tuple[Finding, ...]]()
    chosen = tuple(checks)
    threads = [
        threading.Thread(target=lambda check=check: done.__setitem__(check.name, _look(check, subject)), daemon=True)
        for check in chosen
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, ends - time.monotonic()))
    found = dict(done)
    late = {check.name: (_late(check, deadline_s),) for check in chosen if check.name not in found}
    return _with_cause([finding for check in chosen for finding in (found | late)[check.name]])


def _look(check: Check, subject: Subject) -> tuple[Finding, ...]:
    if subject.lacks(check.needs):
        why = Needs.CONFIG if subject.config_if_any is None else check.needs
        return (Finding(check.name, State.NOT_APPLICABLE, str(why)),)
    try:
        said = tuple(check.look(subject))
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        return (Finding(check.name, State.WARNING, f"could not be looked at: {place}{error.strerror or error}"),)
    except (Fault, OffgridError) as error:
        return (Finding(check.name, State.WARNING, f"could not be looked at: {error.message}"),)
    except Exception as error:  # noqa: BLE001 - a check that has a defect says so, and the others are made
        return (Finding(check.name, State.WARNING, f"could not be looked at, by a defect of this check: {error!r}"),)
    if not said:
        return (Finding(check.name, State.OK, check.looks_at),)
    return tuple(Finding(check.name, each.state, each.sentence, each.command) for each in said)


def _late(check: Check, deadline_s: float) -> Finding:
    return Finding(check.name, State.WARNING, f"no answer within {deadline_s:.1f} s: {check.looks_at}")


def _with_cause(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """A node that does not run is no fault of its own where another one keeps it from running."""
    others = any(each.state is State.FAULT and each.check != "process" for each in findings)
    return tuple(
        Finding(each.check, State.WARNING, each.sentence, each.command)
        if others and each.check == "process" and each.state is State.FAULT
        else each
        for each in findings
    )
