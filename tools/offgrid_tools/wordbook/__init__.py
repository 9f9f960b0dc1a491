"""Dictionaries for packet links: recorded from real meshes, trained, measured. `python -m offgrid_tools.wordbook`."""
