"""Where other nodes may be: mDNS in the local network, a file of hosts, and which of our own addresses to tell.

Everything found here is a hint. Who somebody is, the handshake proves.
"""

from offgrid_node.discovery.addresses import advertised, ip_addresses
from offgrid_node.discovery.hints import Hint
from offgrid_node.discovery.hosts_file import HostEntry, HostsFile

__all__ = ["Hint", "HostEntry", "HostsFile", "advertised", "ip_addresses"]
