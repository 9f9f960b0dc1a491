"""Coders: the same shards from three libraries, or from none.

Siblings of storage and executors; protocol never imports them. Which rows are summed with what coefficients is said by
`protocol/objects/code.py`; a coder does it to many bytes, fast.
"""

from offgrid_node.coding.choice import Choice, choose
from offgrid_node.coding.coder import Buffer, Coder

__all__ = ["Buffer", "Choice", "Coder", "choose"]
