"""Packet links: sessions between nodes over whatever carries frames, and the links themselves."""
