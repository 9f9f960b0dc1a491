"""reconcile: how two nodes find out where their sets differ, in bytes that follow the difference and not the sets.

`vectors.py` tells who lacks whose latest, `ranges.py` finds what differs in a recent tail, `symbols.py` with
`sessions.py` what differs anywhere; `driver.py` goes the cheapest way. Objects compare inventories by sessions alone,
since an inventory has no order in time. All of it is pure: bytes in, bytes out, each bound with its name.
"""
