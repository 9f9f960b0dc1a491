"""Summaries: what is remembered of events after they are gone."""
