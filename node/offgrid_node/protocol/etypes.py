"""The semantic event types of the journal, as users have them."""

from offgrid.event_types import EventType

__all__ = ["EventType"]
