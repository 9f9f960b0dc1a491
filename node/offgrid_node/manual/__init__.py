"""The documents that come with a node, as pages: what the gateway serves at /docs and `offgrid-node docs` writes.

No script, nothing inline, no request to anywhere else, so that a browser may be told to allow none of it.
"""

from offgrid_node.manual.library import Library, NoDocuments
from offgrid_node.manual.site import Site

__all__ = ["Library", "NoDocuments", "Site"]
