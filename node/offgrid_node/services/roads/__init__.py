"""Roads to other nodes: which is taken first, what is known of each, and what people ask about them."""
