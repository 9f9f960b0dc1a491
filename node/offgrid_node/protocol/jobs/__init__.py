"""jobs: missions, tasks and jobs; the book of standing offers; leases and receipts.

A node plays up to three parts here, one file each: `core.py` owns jobs and alone accepts results, `broker.py` clears
orders against offers, `host.py` executes. `machine.py` is the domain's machine; it hands inputs to the parts.
"""
