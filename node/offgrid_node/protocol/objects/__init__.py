"""objects: sealed, coded and placed data; the outbox that brings it to its hosts; the replicas kept for others."""
