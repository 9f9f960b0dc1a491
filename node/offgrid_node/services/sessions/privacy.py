"""What may be recorded and given away as it was said, and what the journal tells of it: the owner's settings."""

from __future__ import annotations

import msgspec


class Privacy(msgspec.Struct, frozen=True):
    """`raw_content`: what is content may be recorded as it is; `export_content`: it is in exports that nobody asks for
    without it; `audit`: the journal tells of readings as well."""

    raw_content: bool = False
    export_content: bool = False
    audit: bool = False
