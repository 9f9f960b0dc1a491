"""The simulator: whole nodes in one process, in virtual time.

`engine.py` is the heap of events and the trace, `network.py` the roads between nodes with their faults, `crypto.py`
signatures that cost nothing and cannot be forged, `founding.py` the mesh they are born into, `process.py` one node's
process that crashes and comes back, with `agenda.py` and `driver.py` for each of its lives, `work.py` what its executor
does, `cluster.py` all of them together, `plan.py` what a seed has in store, `crowd.py` and `users` who asks them for
anything, `nemesis.py` what befalls them, `liars` members that lie, `monitor` the invariants, `mutants` planted bugs,
`main.py` what `offgrid sim` runs. The machines, the runtime, the handlers and the router are the very ones of the
daemon. One Random, one heap, no wall clock, no thread, no set iterated.
"""
