"""The pure floor: the rules of the system, one room per domain.

Nothing below this folder knows a clock, a socket, a disk, a thread or a global random. Inputs and the time go in,
effects come out; import-linter holds it to that.
"""
