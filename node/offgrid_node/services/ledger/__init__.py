"""ledger: the handlers, what peers send checked before the machine sees it, rows as people read them."""
