"""reconcile: how two nodes find out where their sets differ, in bytes that follow the difference and not the sets.

`symbols.py` makes a set's coded symbols and takes the difference out of two sets'; `sessions.py` has the two sides of
one reconciliation, by calls or by one stream. The objects' inventories and the ledger's heads are compared so. All of
it is pure: bytes in, bytes out, each bound with its name.
"""
