"""What a node says that was damaged at rest: begun, asked, worked with and begun again, by its own code, in a process
of its own that the damage may kill; held against every right answer.

Nothing may be wrong: what is not right has to be refused, by a fault that says why. What nothing tells of must be where
nobody reads: then all rows, events and answers are right, and stay so while the node goes on.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec

from offgrid_node.folder import Folder, check_store, open_store
from offgrid_node.protocol.errors import Fault
from offgrid_node.storage.store import Store
from offgrid_tools.soak.damage_sample import Answers, Known, answers_of, begin, later_of

PATIENCE_S = 60  # with a process that answers nothing any more
HONEST = ("Corrupt", "Unavailable", "FailedPrecondition")  # of refusals: kinds that say it is not the asker's fault
SHOWN = 160


class Seen(msgspec.Struct):
    """`told`: what named the damage; `wrong`: answers that are not right and no refusal, and defects."""

    told: list[str] = msgspec.field(default_factory=list)
    wrong: list[str] = msgspec.field(default_factory=list)
    killed: str = ""  # the signal, or "hangs"

    @property
    def detected(self) -> bool:
        return bool(self.told or self.killed)


def look(folder: Path, known: Known, *, rows_too: bool) -> Seen:
    """In a process of its own. `rows_too`: its store is read whole before the node begins."""
    if sys.platform == "win32":
        raise NotImplementedError("damages are looked at by forks, which Windows has not")
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())
            with os.fdopen(writing, "wb") as pipe:
                pipe.write(json.dumps(msgspec.to_builtins(_seen(folder, known, rows_too))).encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = b""
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        while select.select([pipe], [], [], PATIENCE_S)[0]:
            part = pipe.read(1 << 20)
            if not part:
                break
            said += part
        else:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return Seen(killed="hangs")
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Seen(**json.loads(said)) if said else Seen(killed=signal.Signals(-code).name if code < 0 else f"exit {code}")


def _seen(folder: Path, known: Known, rows_too: bool) -> Seen:
    seen = Seen()
    try:
        if rows_too:
            _read_rows(folder, known, seen)
        _ask(folder, known.answers, seen)
        if not seen.told and not seen.wrong:
            _go_on(folder, known, seen)
            with closing(open_store(Folder(folder).config({}), create=False)) as store:
                seen.told += store.verify()
    except Fault as fault:
        seen.told.append(fault.message)
    except Exception as error:  # noqa: BLE001 - whatever else comes out of it is what is looked for
        seen.wrong.append(f"{type(error).__name__}: {error}")
    return seen


def _ask(folder: Path, right: Answers, seen: Seen) -> None:
    for _ in range(2):  # the second time after a restart
        node = begin(folder)
        try:
            seen.told += node.findings
            _compare(answers_of(node), right, "", seen)
        finally:
            node.stop()


def _go_on(folder: Path, known: Known, seen: Seen) -> None:
    """Where a write was refused, what was to come of it need not be there; all else does."""
    later = later_of(folder)
    _compare(later, known.later, "later: ", seen)
    if seen.told:
        seen.wrong.clear()
        as_before = {question: right for question, right in known.later.items() if known.answers[question] == right}
        _compare(later, as_before, "later: ", seen)


def _compare(answers: Answers, right: Answers, when: str, seen: Seen) -> None:
    for question, expected in right.items():
        answer = answers[question]
        if answer == expected:
            continue
        if answer.startswith("!") and answer[1:].split()[0] in HONEST:
            seen.told.append(f"{when}{question}: {answer[1:]}")
        else:
            seen.wrong.append(f"{when}{question}: {_difference(answer, expected)}")


def _difference(answer: str, expected: str) -> str:
    at = next((at for at, (a, b) in enumerate(zip(answer, expected, strict=False)) if a != b), None)
    at = max(0, (min(len(answer), len(expected)) if at is None else at) - 20)
    return f"{answer[at : at + SHOWN]!r} and not {expected[at : at + SHOWN]!r}"


def _read_rows(folder: Path, known: Known, seen: Seen) -> None:
    with closing(open_store(Folder(folder).config({}), create=False)) as store:
        seen.told += check_store(store)
        for what, found, expected in _read(store, known):
            try:
                answer = found()
            except Fault as fault:
                seen.told.append(f"{what}: {fault.message}")
            else:
                if answer != expected:
                    seen.wrong.append(f"{what} is not as it was")


def _read(store: Store, known: Known) -> Iterator[tuple[str, Any, Any]]:
    for table, rows in known.rows.items():
        for reverse in (False, True):
            order = rows[::-1] if reverse else rows
            yield f"table {table}", lambda t=table, r=reverse: [*store.scan(t, reverse=r)], order
        for key, value in rows:
            yield f"row {table}/{key!r}", lambda t=table, k=key: store.get(t, k), value
    events = [*enumerate(known.events, 1)]
    yield "the journal", lambda: [*store.events()], events
    yield "the journal", lambda: [*store.events(reverse=True)], events[::-1]
