"""ledger: accounts, slots that witnesses vote on, and the blocks in which all of it travels."""
