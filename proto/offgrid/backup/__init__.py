"""Backups of a node's store, as files: what is in one (`container.py`), sealed for somebody (`sealed.py`), whose keys
(`recovery.py`), and the keys of sessions beside it (`wrapped.py`). The node writes them, its command checks them."""

from __future__ import annotations


class BackupError(Exception):
    """The root of what follows. The message is a sentence for people."""


class BackupDamaged(BackupError):
    """Bytes are missing, changed or too many: nothing of the file is to be used."""


class BackupUnknown(BackupError):
    """No backup, or one of a newer version of this program."""


class SecretNeeded(BackupError):
    """It is sealed, and what was given does not open it."""
