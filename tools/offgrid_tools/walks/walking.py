"""Types one page, block after block, and says what did not go as the page says."""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from offgrid_tools.walks.blocks import Block, blocks_of
from offgrid_tools.walks.checking import CHECKS, WalkFailed
from offgrid_tools.walks.stage import ROOT, Machine, Stage
from offgrid_tools.walks.statements import Statement, filled, holes_of, is_like, statements_of

COMMAND_S, SOAK_COMMAND_S, STREAM_S, LOOK_S, LOOK_AGAIN_S = 120.0, 900.0, 1.5, 60.0, 0.2
ASK: Mapping[str, tuple[str, str]] = {
    "j-": ("job list --limit 1", "jobs.0.job_id"),
    "TX": ("history --limit 1", "transactions.0.tx_id"),
    "MESH-ID": ("status", "mesh_id"),
    "NUMBER": ("mail sent", "mail.0.number"),
    "MESSAGE": ("mail inbox", "messages.0.message_id"),
}
"""Where a reader finds what stands for something else: a command, and the place in what it says with --json."""
HEARD = {
    "og1:": re.compile(r"\bog1:\S+"),
    "m-": re.compile(r"\bm-[a-z2-7]{16}\b"),
    "t-": re.compile(r"\bt-[a-z2-7]{16}\b"),
}
"""What was last said, in full, of this form."""
WORDS = re.compile(r"\b(?:[a-z]{3,8} ){23}[a-z]{3,8}\b")
ASSIGNMENT = re.compile(r"[A-Z_]+=")
ASKS_FOR_WORDS = re.compile(r"\brestore .*--words\b|\bwords --enter\b")

Say = Callable[[str], None]


class Walk:
    """One page on a stage."""

    def __init__(self, page: str | Path, stage: Stage, say: Say, *, soak: bool) -> None:
        """`page` is the path of a document in the repository, or of any other."""
        self._page, self._stage, self._say, self._soak = page, stage, say, soak
        self._heard = ""
        self._words_of: dict[str, list[str]] = {}
        self._up: list[Machine] = []

    def go(self) -> int:
        """How many commands and programs were run. Raises WalkFailed with page and line of the first that failed."""
        count = 0
        for block in blocks_of(ROOT / self._page, frozenset(self._stage.machines)):
            try:
                if block.language in CHECKS:
                    CHECKS[block.language](block.text)
                elif block.runs and (self._soak or not block.soak):
                    count += self._block(block)
            except WalkFailed as failed:
                raise WalkFailed(f"{self._page}:{block.line}: {failed}") from None
        return count

    def _block(self, block: Block) -> int:
        machine = self._stage.machines[block.machine] if block.machine else self._stage.first
        for name, end in ((block.dies, self._stage.kill), (block.stops, self._stage.stop)):
            if name:
                end(self._stage.machines[name])
                self._up = [each for each in self._up if each.name != name]
        if block.language == "python":
            script = machine.folder / "program.py"
            script.write_text(self._stage.meant(machine, block.text), "utf-8")
            self._heard += self._stage.run(machine, f"python {script.name}", COMMAND_S)
            return 1
        statements = statements_of(block.text, console=block.language == "console")
        for statement in statements:
            self._statement(machine, block, statement)
        return len(statements)

    def _statement(self, machine: Machine, block: Block, statement: Statement) -> None:
        command = self._filled(machine, statement.text)
        began = time.monotonic()
        if _is_node(command):
            told = self._stage.leave_running(machine, command)
            self._up.append(machine)
            self._stage.wait_together(self._up)
        elif _is_server(command):
            told = self._stage.leave_talking(machine, command)
        else:
            told = self._typed(machine, command, block, statement.expected)
        self._heard += told
        self._words_of.setdefault(machine.name, []).extend(WORDS.findall(told))
        self._say(f"{time.monotonic() - began:6.2f} s  {machine.name}$ {statement.text.strip()}")

    def _typed(self, machine: Machine, command: str, block: Block, expected: list[str] | None) -> str:
        """What it says, which is what is shown; of what may come later, once it is so."""
        timeout_s = STREAM_S if block.stream else SOAK_COMMAND_S if block.soak else COMMAND_S
        deadline = time.monotonic() + (LOOK_S if block.later else 0.0)
        while True:
            try:
                words = self._words(machine) if ASKS_FOR_WORDS.search(command) else ""
                told = self._stage.run(machine, command, timeout_s, stream=block.stream, typed=words, ends=block.ends)
                if expected is not None and not is_like(expected, told):
                    shown = "\n".join(expected)
                    raise WalkFailed(f"{command}\nis shown to say\n{shown}\nand says\n{told}")
                return told
            except WalkFailed:
                if time.monotonic() > deadline:
                    raise
                time.sleep(LOOK_AGAIN_S)

    def _words(self, machine: Machine) -> str:
        """The recovery words that a reader has on paper: the first that were said there, or anywhere."""
        said = [*self._words_of.get(machine.name, []), *WORDS.findall(self._heard)]
        if not said:
            raise WalkFailed("no recovery words were said before")
        return f"{said[0]}\n"

    def _filled(self, machine: Machine, command: str) -> str:
        return filled(command, {hole.text: self._value(machine, hole.kind) for hole in holes_of(command)})

    def _value(self, machine: Machine, kind: str) -> str:
        if kind in HEARD:
            said = HEARD[kind].findall(self._heard)
            if not said:
                raise WalkFailed(f"nothing that begins with {kind} was said before")
            return str(said[-1])
        question, place = ASK[kind]
        deadline = time.monotonic() + LOOK_S
        while True:
            found = _at(json.loads(self._stage.run(machine, f"offgrid --json {question}", COMMAND_S)), place)
            if found is not None:
                return str(found)
            if time.monotonic() > deadline:
                raise WalkFailed(f"offgrid {question} has no {place} yet")
            time.sleep(LOOK_AGAIN_S)


def _is_node(command: str) -> bool:
    """Whether it is a node that runs on."""
    words = [word for word in shlex.split(command, comments=True) if not ASSIGNMENT.match(word)]
    return words[:2] in (["offgrid-node", "run"], ["offgrid-node", "join"]) and "--no-run" not in words


def _is_server(command: str) -> bool:
    return command.startswith("python -m ")


def _at(document: Any, place: str) -> Any:
    for key in place.split("."):
        try:
            document = document[int(key) if key.isdecimal() else key]
        except (LookupError, TypeError):
            return None
    return document
