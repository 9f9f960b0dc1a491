"""reconcile: how two nodes find out where their sets differ, in bytes that follow the difference and not the sets.

All of it is pure: bytes in, bytes out, each bound with its name.
"""
