"""The types of the journal's events, all of them, in one place: number, name, what happened, and what an event carries.

10 to 30 are promised to users and keep their numbers; 1 to 9, and 31 on, are the node's own. What an event carries is
the case of `Event.data` (state.proto): a protobuf message, whose fields `docs/reference/events.md` lists. A type that
is not in here was written by a newer node: it is kept as it is, and is known by its number.
"""

from __future__ import annotations

from enum import IntEnum

SEMANTIC = range(10, 31)
"""Those promised to users; also what an application may call its own objects in the outbox, which such an event then
carries (`object`)."""

ETYPE_MAX = 2**32 - 1
"""Whatever number a newer node writes, it is no larger."""


class EventType(IntEnum):
    """What a journal record says happened."""

    data: tuple[str, ...]
    """The cases of Event.data that it may carry; none: its subject says it all."""
    meaning: str

    def __new__(cls, number: int, data: str = "", meaning: str = "") -> EventType:
        made = int.__new__(cls, number)
        made._value_, made.data, made.meaning = number, tuple(data.split()), meaning
        return made

    NODE_STARTED = 1, "node_started", "this node began; the subject is its id"
    MEMBER_ADMITTED = 2, "member", "somebody became a member of the mesh"
    MEMBER_REMOVED = 3, "member", "a membership was revoked"
    INVITE_ISSUED = 4, "invite", "an invitation was made here"
    INVITE_USED = 5, "invite", "somebody joined by it"
    PEER_ALIVE = 6, "peer", "a member answers"
    PEER_DEAD = 7, "peer", "a member does not answer any more"
    HOST_CHANGED = 8, "", "this host takes work, takes none, or is drained: the subject says which"
    BLOCK_ADDED = 9, "ledger", "this node made a block of the ledger"

    MISSION_CREATED = 10, "mission", "a mission was created"
    MISSION_UPDATED = 11, "mission", "its title, description or status changed"
    TASK_CREATED = 12, "task", "a task was created"
    TASK_UPDATED = 13, "task", "a task changed (no node writes it yet)"
    JOB_CREATED = 14, "job", "a job was taken by its core"
    JOB_DISPATCHED = 15, "job", "it was sent to brokers, or to the local queue, or is to be again: `waiting` says why"
    JOB_QUEUED = 16, "attempt", "a broker has its order"
    JOB_AWARDED = 17, "job attempt", "a broker gave an attempt to a host, its core knows, or the host has taken it"
    JOB_EXECUTED = 18, "attempt", "a host is done with an attempt"
    JOB_COMPLETED = 19, "job", "its core accepted a result"
    JOB_FAILED = 20, "job", "it ended without one"
    JOB_CANCELLED = 21, "job", "it was given up"
    QUORUM_CREATED = 22, "quorum", "it was decided who is to keep an object, and how much of them is enough"
    QUORUM_ACKED = 23, "quorum", "one of them has it on disk"
    OBJECT_STORED = 24, "object", "an object was put, became durable, was shared, kept for others…: the outcome says"
    OBJECT_REPAIRED = 25, "object", "what hosts had lost of an object is there again (no node writes it yet)"
    OBJECT_DELETED = 26, "object", "an object, or what is kept of another's, went"
    TX_CREATED = 27, "ledger", "a transfer was signed here"
    TX_FINAL = 28, "ledger", "a transfer of this node's is final, or can never be"
    SETTLED = 29, "ledger", "vouchers were paid: what work had cost"
    SESSION_CHANGED = 30, "session block", "a session began, ended, was read…, or events of it were recorded together"

    HEALTH_CHANGED = 31, "alert", "a figure is beyond its threshold, or no more"
    MAIL_CHANGED = 32, "mail", "mail was sent, held for others, taken, answered, expired…: the outcome says"
    INVITE_REVOKED = 33, "invite", "an invitation that nobody had used was taken back"


_BY_NUMBER = {etype.value: etype.name for etype in EventType}


def type_name(etype: int, said: str = "") -> str:
    """What people are shown: of a known type what its event says (or its name here), of a newer node's the number."""
    known = _BY_NUMBER.get(etype)
    return str(etype) if known is None else said or known
