"""What a check says: how a thing is, in one sentence, and the command to type next."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from offgrid_node.doctor.subject import Subject


class State(StrEnum):
    """The worst last."""

    NOT_APPLICABLE = "not_applicable"
    OK = "ok"
    WARNING = "warning"
    FAULT = "fault"


class Said(msgspec.Struct, frozen=True):
    """What a check has seen. `command` is empty where nothing is to be done."""

    state: State
    sentence: str
    command: str = ""


class Finding(msgspec.Struct, frozen=True):
    """Of the check of that name."""

    check: str
    state: State
    sentence: str
    command: str = ""


class Needs(StrEnum):
    """What a check cannot do without."""

    NOTHING = ""
    CONFIG = "its config cannot be read"
    STOPPED = "the node runs, and has these itself"
    RUNNING = "the node does not answer"


class Check(msgspec.Struct, frozen=True):
    """`look` says nothing where all is well; what it raises of the system's errors becomes a warning."""

    name: str
    looks_at: str
    look: Callable[[Subject], Iterable[Said]]
    needs: Needs = Needs.CONFIG


def fault(sentence: str, command: str) -> Said:
    """It keeps the node, or a part of it, from working."""
    return Said(State.FAULT, sentence, command)


def warning(sentence: str, command: str) -> Said:
    """It works, and somebody should look at it."""
    return Said(State.WARNING, sentence, command)


def not_applicable(why: str) -> Said:
    """There is nothing of the kind here."""
    return Said(State.NOT_APPLICABLE, why)


def command(*words: object) -> str:
    """As a shell wants it."""
    return shlex.join(str(word) for word in words)
