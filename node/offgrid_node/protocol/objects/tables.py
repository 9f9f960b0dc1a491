"""The rows of objects: table names, keys, and how the newest object of a name is found.

A number of the outbox is given once and only rises, so it orders objects where no clock can be trusted.
"""

from __future__ import annotations

import hashlib

from offgrid_node.protocol.quorum.records import OBJECT_PREFIX

OBJECTS = "objects"  # object id → ObjectRow, of this node's own objects
OBJECT_NAMES = "object_names"  # digest of a name, outbox number counted down → object id
OUTBOX = "outbox"  # number (8 bytes, big-endian) → OutboxEntry
OUTBOX_OPEN = "outbox_open"  # number → object id, of what is not completed
SPREADING = "objects_spreading"  # spare weight, number → object id, of what is durable and still short of its copies
REPLICAS = "replicas"  # object id "/" owner → ReplicaRow, at a host
DELETED = "objects_deleted"  # object id → Deletion, of this node's own: the mark that stays
NOTICES = "object_notices"  # node "/" object id → number of the notice that the node has yet to hear (notices.py)
DROPPED = "replicas_dropped"  # object id "/" owner → when (8 bytes), a mark: the fence that stays (dropping.py)
DROPPED_AGES = "replicas_dropped_ages"  # owner "/" when, object id → nothing: the same fences, an owner's oldest first
MOVED = "replicas_moved"  # object id "/" owner → the epoch that took shards away from this host (dropping.py)
SHARED = "objects_shared"  # object id "/" owner → SharedRow, of what others let this node read
READ = "objects_read"  # object id "/" owner → when (8 bytes): it was shared with this node, and is no more (sharing.py)
UNPROVED = "objects_unproved"  # object id → nothing, of this node's own: an audit is wanted soon (audits.py)
VERIFIED = "objects_verified"  # when (8 bytes, µs UTC), object id → nothing, of this node's own (verified.py)
EXPIRING = "objects_expiring"  # time (8 bytes, µs UTC), object id → nothing, of this node's own
REPLICAS_EXPIRING = "replicas_expiring"  # likewise object id "/" owner, at a host
KEPT_BYTES = "replica_bytes"  # owner → how many bytes this host keeps for it (8 bytes, big-endian)
GONE = "owners_gone"  # owner → since when (8 bytes, µs UTC) this host knows that it was removed from the mesh (gone.py)
GIVEN = "objects_given"  # host "/" object id → its shards that the host has acked, a byte each; see inventory.py
KEPT = "replicas_kept"  # owner "/" object id → its shards that lie here, a byte each
SEGMENTS_KEPT = "replicas_segments"  # owner "/" life, number, object id → nothing, at a host: of owners' journals
LIVES = "lives"  # node → its newest life as it signed that, of other nodes (lives.py)
INVENTORY_SUMS = "inventory_sums"  # one of the two tables "/" node → how many rows it has of it, and their sum
OBJECT_REQUESTS = "object_requests"  # see protocol/requests.py
META, LAST_NUMBER = "meta", b"outbox"  # the last number given
SEEN_CLOCK = b"expiry_clock"  # in META: what the wall clock said when it was last believed (expiry.py)
LAST_NOTICE = b"object_notice"  # in META: likewise of notices
NOTICE_LIFE = b"object_notice_life"  # in META: the life in which a notice last left (latecomers.py)
WRAP_LABELS = "wrap_labels"  # node → label of the key for which this node's objects are wrapped for it (rewrapping.py)
REWRAPPING = b"rewrapping"  # in META: RewrapRow, how far they are wrapped anew
RESEALING = b"resealing"  # in META: ResealRow, how far this node's objects are sealed anew (resealing.py)
REGAINED = "objects_regained"  # "missing/" or "back/", object id → RegainedObject, of what was forgotten (regaining.py)
RESEALED = "objects_resealed"  # object id → id of what is to take its place, and is not durable yet
BACK = b"objects_back"  # in META: how many rows REGAINED has of what is back, and when the last came (8 bytes each)
JOBS_OPEN = b"outbox_jobs"  # in META: how many of OUTBOX_OPEN are inputs and results of jobs
VERIFIED_COUNT = b"objects_verified"  # in META: how many rows VERIFIED has

NUMBER_BYTES, NUMBER_MAX = 8, 2**64 - 1
NAME_DIGEST_BYTES = 16
MISSING_PREFIX = b"missing/"


def number_key(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES, "big")


def number_of(value: bytes) -> int:
    """The inverse of `number_key`; 0 for nothing."""
    return int.from_bytes(value, "big")


def spreading_key(spare_milli: int, number: int) -> bytes:
    """What is nearest to loss comes first."""
    return spare_milli.to_bytes(4, "big") + number_key(number)


def outbox_key(number: int) -> bytes:
    return number_key(number)


def name_prefix(name: str) -> bytes:
    """In OBJECT_NAMES the first row with this prefix is the newest object of that name; check the name all the same."""
    return hashlib.blake2b(name.encode(), digest_size=NAME_DIGEST_BYTES, person=b"og.name.v1").digest()


def name_key(name: str, number: int) -> bytes:
    return name_prefix(name) + outbox_key(NUMBER_MAX - number)


def replica_key(object_id: str, owner: str) -> bytes:
    """`replica_prefix` finds an object's replicas of every owner: the bytes are the same, the manifests may differ."""
    return replica_prefix(object_id) + owner.encode()


def replica_prefix(object_id: str) -> bytes:
    return f"{object_id}/".encode()


def missing_key(object_id: str) -> bytes:
    return MISSING_PREFIX + object_id.encode()


def back_key(object_id: str) -> bytes:
    return b"back/" + object_id.encode()


def notice_key(node_id: str, object_id: str) -> bytes:
    return notice_prefix(node_id) + object_id.encode()


def notice_prefix(node_id: str) -> bytes:
    return f"{node_id}/".encode()


def expiring_key(expires_us: int, name: str) -> bytes:
    return number_key(expires_us) + name.encode()


def age_key(owner: str, utc_us: int, object_id: str) -> bytes:
    return age_prefix(owner) + number_key(utc_us) + object_id.encode()


def segment_key(owner: str, order: tuple[int, int], object_id: str) -> bytes:
    """The newest one comes last."""
    return age_prefix(owner) + b"".join(map(number_key, order)) + object_id.encode()


def object_of_segment(key: bytes, owner: str) -> str:
    """The object id in a `segment_key`."""
    return key[len(age_prefix(owner)) + 2 * NUMBER_BYTES :].decode()


def age_prefix(owner: str) -> bytes:
    return f"{owner}/".encode()


def object_of_age(key: bytes, owner: str) -> str:
    """The object id in an `age_key`."""
    return key[len(age_prefix(owner)) + NUMBER_BYTES :].decode()


def quorum_id_of(object_id: str) -> str:
    return OBJECT_PREFIX + object_id


def object_of(quorum_id: str) -> str:
    """The inverse of `quorum_id_of`; "" for any other quorum."""
    return quorum_id.removeprefix(OBJECT_PREFIX) if quorum_id.startswith(OBJECT_PREFIX) else ""
