"""The rows of mail: table names and keys."""

from __future__ import annotations

from offgrid_node.protocol.ids import NODE_ID_BYTES, node_id_bytes, node_id_from

OUTBOX = "mail_outbox"  # number → Mail: requests that this node has sent
OWN = "mail_own"  # number → OwnParcelRow: this node's own parcels on their way, requests and answers
SEEN = "mail_seen"  # source, number → SeenRow: requests that this node has taken
FLOORS = "mail_floors"  # source → number: below it the source's requests have ended
HELD = "mail_held"  # source, number → HeldRow: others' parcels at a mailbox
MESSAGES = "mail_messages"  # message id → MessageRow
DATA = "mail_data"  # message id → its bytes
META, LAST_NUMBER = "meta", b"mail_number"

NUMBER_BYTES = 8


def number_key(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES, "big")


def number_of(value: bytes | None) -> int:
    """The inverse of `number_key`; 0 for no row."""
    return int.from_bytes(value or b"", "big")


def parcel_key(source: str, number: int) -> bytes:
    return node_id_bytes(source) + number_key(number)


def parcel_of(key: bytes) -> tuple[str, int]:
    """The inverse of `parcel_key`."""
    return node_id_from(key[:NODE_ID_BYTES]), number_of(key[NODE_ID_BYTES:])
