"""mail: requests for members that are away, carried in sealed parcels, held by mailboxes, handled exactly once."""
