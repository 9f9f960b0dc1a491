"""The simulator: whole nodes in one process, in virtual time.

`engine.py` is the heap of events, `network.py` the roads between nodes with their faults, `crypto.py` signatures that
cost nothing and cannot be forged, `cluster.py` nodes that crash and come back, `workload.py` their users,
`monitor.py` the invariants, `mutants.py` planted bugs, `main.py` what `offgrid sim` runs. The machines, the runtime
and the handlers are the very ones of the daemon. One Random, one heap, no wall clock, no thread, no set iterated.
"""
