"""objects: handlers, what an owner brings in and reads back, what a host keeps for others: bulk work, no rules."""
