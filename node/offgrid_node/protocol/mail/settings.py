"""What a node's identity, mesh and config tell the mail machine."""

from __future__ import annotations

import msgspec

from offgrid_node.protocol.effects import Signer
from offgrid_node.protocol.pace import Paces, all_free

DAY_US = 86_400_000_000
MAILBOX_MB, MAX_DAYS = 16, 7


class MailSettings(msgspec.Struct, frozen=True):
    """`salt` is the mesh's. `mailbox_bytes` are held for others, 0: none. What is sent or held lasts
    `keep_us` at most."""

    signer: Signer
    salt: bytes
    mailbox_bytes: int = MAILBOX_MB * 1024 * 1024
    keep_us: int = MAX_DAYS * DAY_US
    paces: Paces = all_free

    @property
    def node_id(self) -> str:
        return self.signer.node_id
