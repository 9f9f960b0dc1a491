"""Damages at rest, one a round, in what a node leaves on the disk and in its backups: each is told of, nothing wrong is
ever answered, and what there is a copy of comes back.

The store is what harm is done to most often; then its redo log, the keys of its sessions, its own key, what it keeps
as files, and, with a store that is sound, a backup and the wrapped keys beside it.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random

import msgspec

from offgrid.backup import BackupError
from offgrid.backup.container import BackupReader
from offgrid.backup.wrapped import WRAPPED_KEYS
from offgrid_node.folder import Folder
from offgrid_node.protocol.errors import Fault
from offgrid_node.store_trial import try_store
from offgrid_tools.soak.chance import chance
from offgrid_tools.soak.damage_look import Seen, look
from offgrid_tools.soak.damage_sample import BACKUP, EARLIER, KEY, SECRET, STATES, Sample, make_sample, restored_in
from offgrid_tools.soak.harm import Harm, harmed
from offgrid_tools.soak.toll import Toll

STEP = 500
RESTORE_EACH = 8
IN_MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of one's own is made in it
DATA, LOG = "data/memory.db/data.mdb", "data/memory.db/redo.log"
SESSION_KEYS, NODE_KEY, MADE = "data/sessions.keys", f"keys/{KEY}", "data/memory.db/store.made"
KEPT = "data/chunks/kept"
BACKUP_PERCENT = 15
TARGETS = {DATA: 64, LOG: 16, SESSION_KEYS: 6, KEPT: 5, NODE_KEY: 3, MADE: 1}

Say = Callable[[str], None]


class Round(msgspec.Struct, frozen=True):
    """What was done to which file, and what came of it."""

    target: str
    harm: Harm
    state: str
    seen: Seen
    repaired: str = ""  # "yes", "no copy", or why not; empty where nothing was to be repaired


def soak_damages(seed: int, rounds: int, home: Path | None, say: Say) -> Toll:
    """In a folder of its own, on a disk in memory where there is one: what is flushed is nothing to this."""
    place = Path(tempfile.mkdtemp(prefix="offgrid-damages-", dir=home or (IN_MEMORY if IN_MEMORY.is_dir() else None)))
    toll, count, kinds = Toll(), Counter[str](), Counter[str]()
    try:
        sample = make_sample(place)
        for number in range(rounds):
            done = one(sample, chance(f"damages {seed} {number}"), number)
            _count(done, count, kinds)
            violations = [f"round {number}: {wrong}" for wrong in _violations(done)]
            for violation in violations:
                say(f"   {violation}")
            toll.violations += violations
            if (number + 1) % STEP == 0 or number + 1 == rounds:
                say(f"   {number + 1:6} damages: {_told(count)}; {len(toll.violations)} violations")
    finally:
        shutil.rmtree(place, ignore_errors=True)
    for name, value in sorted(kinds.items()):
        say(f"     {name:40} {value}")
    toll.figures.update(count)
    return toll


def one(sample: Sample, rng: Random, number: int) -> Round:
    if rng.randrange(100) < BACKUP_PERCENT:
        return _of_backup(sample, rng)
    state = rng.choice(STATES)
    folder = sample.home / "harmed"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(sample.folder(state), folder)
    while True:
        target = rng.choices([*TARGETS], [*TARGETS.values()])[0]
        file = rng.choice(sorted((folder / target).iterdir())) if target == KEPT else folder / target
        harm = harmed(file.read_bytes(), rng, (sample.home / EARLIER).read_bytes() if target == DATA else b"")
        if harm is not None:
            break
    file.write_bytes(harm.content)
    seen = look(folder, sample.states[state], rows_too=bool(number % 2))
    if seen.killed:
        _start_again(folder, seen)
    repaired = ""
    if seen.detected:
        repaired = "no copy" if target == KEPT else _comes_back(sample, number)
    return Round(target, harm, state, seen, repaired)


def _start_again(folder: Path, seen: Seen) -> None:
    """As whoever supervises a node does: it is to say what to do, and not to die each time."""
    try:
        read = try_store(Folder(folder).config({}))
    except Fault as fault:
        seen.told.append(fault.message)
    else:
        if read:
            seen.wrong.append(f"{seen.killed}: the next process is told that the store can be read")


def _comes_back(sample: Sample, number: int) -> str:
    """From the backup, all of it. What the damage has not touched is the same each time, so it is brought back now and
    then, and else only looked at whether it is still what came back."""
    if number % RESTORE_EACH == 0:
        return _restored(sample)
    return "yes" if sample.copies() == sample.whole else "the backup is not what it was"


def _restored(sample: Sample) -> str:
    try:
        answers = restored_in(sample.home, sample.home / "restored")
    except Fault as fault:
        return fault.message
    return "yes" if answers == sample.restored else "what came back is not what was backed up"


def _of_backup(sample: Sample, rng: Random) -> Round:
    """Nothing of it is taken in, and the store that it is of gives another."""
    target = rng.choice((BACKUP, BACKUP, WRAPPED_KEYS))
    file = sample.home / target
    whole = file.read_bytes()
    harm = harmed(whole, rng)
    assert harm is not None
    seen = Seen()
    file.write_bytes(harm.content)
    try:
        if target == BACKUP:
            _verify(file, seen)
        _restore(sample, seen)
    finally:
        file.write_bytes(whole)
    return Round(target, harm, "backup", seen, _restored(sample) if seen.detected else "")


def _verify(file: Path, seen: Seen) -> None:
    try:
        with BackupReader.open(file, secret=SECRET) as reader:
            reader.check()
        seen.wrong.append("it is said to be whole")
    except BackupError as error:
        seen.told.append(str(error))
    except Exception as error:  # noqa: BLE001 - likewise
        seen.wrong.append(f"verify-backup: {type(error).__name__}: {error}")


def _restore(sample: Sample, seen: Seen) -> None:
    try:
        answers = restored_in(sample.home, sample.home / "restored")
    except Fault as fault:
        seen.told.append(fault.message)
    except Exception as error:  # noqa: BLE001 - likewise
        seen.wrong.append(f"restore: {type(error).__name__}: {error}")
    else:
        if answers != sample.restored:
            seen.wrong.append("what came back is not what was backed up")


# ---- what it comes to


def _count(done: Round, count: Counter[str], kinds: Counter[str]) -> None:
    seen = done.seen
    outcome = "wrong" if seen.wrong else "killed" if seen.killed else "detected" if seen.told else "harmless"
    count["damages"] += 1
    count[outcome] += 1
    if done.repaired:
        count[
            "repaired" if done.repaired == "yes" else "no copy" if done.repaired == "no copy" else "not repaired"
        ] += 1
    kinds[f"{Path(done.target).name}, {done.harm.kind}: {outcome}"] += 1
    if seen.killed:
        kinds[f"{Path(done.target).name}: {seen.killed}"] += 1


def _violations(done: Round) -> list[str]:
    where = f"{done.state}, {done.target}, {done.harm.what}"
    broken = [f"{where}: {wrong} (told: {done.seen.told[:1]})" for wrong in done.seen.wrong[:2]]
    if done.repaired not in ("", "yes", "no copy"):
        broken.append(f"{where}: not repaired: {done.repaired}")
    return broken


def _told(count: Counter[str]) -> str:
    named = ("detected", "killed", "harmless", "wrong", "repaired", "no copy", "not repaired")
    return ", ".join(f"{count[name]} {name}" for name in named)
