"""The level of slots: the witness' rules alone, each statement a message of its own. No blocks, no gossip, no wallets:
what another lacks is found out as anti-entropy does, by comparing what both hold."""
