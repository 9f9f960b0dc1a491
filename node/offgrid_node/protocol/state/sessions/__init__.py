"""Sessions: streams of an application's events, sealed, in the journal and beside it."""
