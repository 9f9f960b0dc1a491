"""The invariants, checked as things happen: by what leaves a node, by what its journal says, by what users were told.

`evidence.py` is what all rules share: every node's disk, and who signed what. `rules.py` is what a domain's rules look
like to the monitor, one file per domain holds them (`mesh.py`, `jobs.py`), and `monitor.py` leads each thing that
happens to those whom it concerns. Whatever the domain:

- durable before visible: whatever a node says, to users or to others, is in its journal or its rows by then;
- acked: what a user was told stays in the store of the node that told it, after every crash and at the end;
- signed once: no node signs two different bodies for the same thing;
- no machine ever raises, nor does anything that a commit lets go.
"""

from offgrid_tools.sim.monitor.evidence import Violation
from offgrid_tools.sim.monitor.monitor import Monitor

__all__ = ["Monitor", "Violation"]
