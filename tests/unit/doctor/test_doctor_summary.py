"""The last line of `offgrid-node doctor`."""

from __future__ import annotations

import pytest

from offgrid_node.doctor.findings import Finding, State
from offgrid_node.doctor_command import summary


@pytest.mark.parametrize(
    ("states", "line"),
    [
        ({}, "0 faults, 0 warnings, 0 checks well, 0 not applicable here"),
        ({"fault": 1, "warning": 1, "ok": 1}, "1 fault, 1 warning, 1 check well, 0 not applicable here"),
        ({"fault": 2, "warning": 3, "ok": 4}, "2 faults, 3 warnings, 4 checks well, 0 not applicable here"),
    ],
)
def test_it_counts_as_people_do(states: dict[str, int], line: str) -> None:
    findings = [Finding("x", State(state), "…") for state, count in states.items() for _ in range(count)]
    assert summary(findings) == line
