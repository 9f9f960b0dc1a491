"""A simulator of the ledger alone: the project's own rules under seeded misfortune, judged at every step.

Two levels on one engine, under one judge. `whole` runs ledger machines as nodes do: blocks, gossip, wallets, restores.
`slots` runs the rules of the witness alone, a statement a message: no blocks, so many times as many events a second.
Each hunts the bugs of its level. One heap, one Random, no threads, no wall clock, and nothing that depends on where
objects lie in memory: an equal seed gives an equal trace.
"""
