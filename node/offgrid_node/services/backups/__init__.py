"""Handlers of BackupService."""
