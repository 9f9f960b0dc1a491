"""Radios without radio: what the air does to frames, and modems and controllers that answer as the real ones do."""
