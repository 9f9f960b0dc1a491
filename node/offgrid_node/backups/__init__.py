"""Backups of this node's store as files: taking one, which go when there are too many, and coming back from one."""
