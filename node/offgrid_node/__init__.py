"""offgrid-node: the symmetric daemon. `daemon.py` puts it together; `protocol/` holds its rules."""

__version__ = "0.1.0"
