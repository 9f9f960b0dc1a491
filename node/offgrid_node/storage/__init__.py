"""Where a node keeps things: LMDB below a redo log, its twin in memory, and bulk data as files."""
