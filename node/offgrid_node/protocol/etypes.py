"""The semantic event types of the journal. 10 to 30 are promised to users; 1 to 9 and 31 are its own."""

from __future__ import annotations

from enum import IntEnum


class EventType(IntEnum):
    """What a journal record says happened."""

    NODE_STARTED = 1
    MEMBER_ADMITTED = 2
    MEMBER_REMOVED = 3
    INVITE_ISSUED = 4
    INVITE_USED = 5
    PEER_ALIVE = 6
    PEER_DEAD = 7
    HOST_CHANGED = 8
    BLOCK_ADDED = 9

    MISSION_CREATED = 10
    MISSION_UPDATED = 11
    TASK_CREATED = 12
    TASK_UPDATED = 13
    JOB_CREATED = 14
    JOB_DISPATCHED = 15
    JOB_QUEUED = 16
    JOB_AWARDED = 17
    JOB_EXECUTED = 18
    JOB_COMPLETED = 19
    JOB_FAILED = 20
    JOB_CANCELLED = 21
    QUORUM_CREATED = 22
    QUORUM_ACKED = 23
    OBJECT_STORED = 24
    OBJECT_REPAIRED = 25
    OBJECT_DELETED = 26
    TX_CREATED = 27
    TX_FINAL = 28
    SETTLED = 29
    SESSION_CHANGED = 30

    HEALTH_CHANGED = 31
