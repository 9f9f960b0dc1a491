"""One handler per RPC, and the carriers that bring requests to them.

Handlers are synchronous: they check a request, read committed rows or hand a command to the runtime, and return a
message, a `Ticket` (the answer comes after the commit) or a `Stream`. They know no carrier.
"""
