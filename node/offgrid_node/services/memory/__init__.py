"""What is remembered of events after they are gone: summaries made, joined and asked."""
