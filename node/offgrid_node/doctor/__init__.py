"""`offgrid-node doctor`: what is the matter with the node of a folder, and the next command to type.

It looks and never changes anything, works whether the node runs or not, and ends within DEADLINE_S whatever hangs.
`findings.py` says what a finding is, `subject.py` what is looked at, `running.py` looks; the other files have the
checks, by what they are about.
"""

from offgrid_node.doctor.findings import Check, Finding, State
from offgrid_node.doctor.running import DEADLINE_S, diagnose

__all__ = ["DEADLINE_S", "Check", "Finding", "State", "diagnose"]
