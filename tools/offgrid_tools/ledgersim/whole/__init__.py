"""The level of whole machines: blocks and their gossip, wallets, crashes, restores, owners and witnesses that lie."""
