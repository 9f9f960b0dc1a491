"""A real node that keeps sessions, and dies by kill -9 in each phase of that: as it appends, takes snapshots, sums up,
drops, purges, imports, makes its store's file small, backs it up, starts, migrates, and while it comes back from a
backup in another folder. Its clock is wrong now and then, by an hour back or two days forward.

Two seats record all the time (diary.py). After each death all is held against what they know: what was answered for is
there, once, in order; states are what events come to; what was shredded is in no file; a backup is whole or is none.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from offgrid.backup.recovery import make_secret, public_of, public_text, read_secret
from offgrid.backup.wrapped import WRAPPED_KEYS
from offgrid.client import Client, OffgridError, breaker
from offgrid_node.folder import Folder, open_store
from offgrid_node.founding import found
from offgrid_node.local_mesh import LOCAL
from offgrid_node.protocol.errors import Fault, Unavailable
from offgrid_tools.soak.audit_state import audit_backups, audit_left, backups_in, left_in
from offgrid_tools.soak.chance import chance
from offgrid_tools.soak.diary import Diary, Page, Seat, keys_in
from offgrid_tools.soak.marked import CALL_S, POLL_S, Asked, MarkedNode, told_of
from offgrid_tools.soak.old_form import grow_old
from offgrid_tools.soak.toll import Say, Toll, at_home

SEATS, OVER_MAX, SHREDDED_MAX, BACKUPS_MAX = 2, 4, 40, 3
SETTINGS = {
    **LOCAL,
    "node.log_level": "warning",
    "state.store_raw_content": True,
    "state.backup_interval": 3,
    "state.backup_limit_mb": 4,
    "state.vacuum_interval": 0,
    "storage.retention_base_mb": 1,
    "storage.compaction_interval": 1,
}
ASKED = ("compact", "backup", "purge", "import", "snapshot now")  # killed some time after it was asked for it
FATED = {  # killed at one of so many of its moments, as marked_node.py counts them
    "append": 40,
    "snapshot": 20,
    "summary": 20,
    "retention": 20,
    "checkpoint": 20,
    "purge": 24,
    "keys": 10,
    "wrap": 10,
    "import": 12,
    "take over": 30,
    "rotation": 4,
}
NEEDS = {"keys": "purge", "wrap": "purge", "purge": "purge", "import": "import", "take over": "compact"}
ALONE = ("start", "migrate", "restore")
PHASES = (*ASKED, *FATED, *ALONE)
SKEWS_S = (0, 0, 0, -3_600, 2 * 86_400)
FATE_S = 15.0  # until it is killed from without
MIGRATION_MOMENTS, RESTORE_MOMENTS = 120, 60
START_S, COMMAND_S = (0.2, 1.6), 60.0
GOES_ON_S = 20.0  # so long a purge that was noted may take after a start
DEFECTS = ("Traceback", "damaged", "INTERNAL")
BREAKER_S = 0.5  # a node that dies all the time is tried again soon


class Plan(msgspec.Struct, frozen=True):
    """`rounds` kills, as many in each phase."""

    seed: int
    rounds: int


def soak_state_kills(plan: Plan, folder: Path | None, say: Say) -> Toll:
    """See `at_home` for what becomes of the folder."""
    breaker.OPEN_S = BREAKER_S
    return at_home("state-kills", folder, lambda home: Run(plan, home, say).run(), say)


class Run:
    """One run: a node, a twin that comes back from its backups, and those who record."""

    def __init__(self, plan: Plan, home: Path, say: Say) -> None:
        self.plan, self.home, self.say = plan, home, say
        self.rng = chance(f"{plan.seed}/state-kills")
        self.node, self.twin = MarkedNode(home / "node"), MarkedNode(home / "twin")
        self.out, self.secret_file, self.backups = home / "out", home / "recovery", self.node.data / "backups"
        self.diary = Diary(chance(f"{plan.seed}/diary"))
        self.seats = [
            Seat(n, self.diary, lambda: self.node.client(5.0), chance(f"{plan.seed}/seat/{n}")) for n in range(SEATS)
        ]
        self.took: dict[str, float] = {}
        self.fell: Counter[str] = Counter()  # kills, by phases that were under way
        self.met: Counter[str] = Counter()
        self.violations: list[str] = []
        self.kills = 0

    # ---- the run

    def run(self) -> Toll:
        self.out.mkdir(parents=True)
        make_secret(self.secret_file)
        self.secret = read_secret(self.secret_file)
        settings = {**SETTINGS, "state.recovery_key": public_text(public_of(self.secret.key))}
        found(self.node.folder, "soak", "node", ["core"], settings)
        began = time.monotonic()
        self.node.start("run")
        self.node.wait_ready()
        for seat in self.seats:
            seat.start()
        try:
            while self.kills < self.plan.rounds and not self.violations:
                for phase in self.rng.sample(PHASES, len(PHASES)):
                    if self.kills < self.plan.rounds and not self.violations:
                        self._round(phase)
            self._end()
        except (Fault, OffgridError) as fault:
            self.violations.append(f"{type(fault).__name__}: {fault}")
        finally:
            self.diary.given_up.set()
            for node in (self.node, self.twin):
                if node.process is not None and node.process.poll() is None:
                    node.kill()
        return self._toll(time.monotonic() - began)

    def _round(self, phase: str) -> None:
        alive = {"start": self._kill_at_start, "migrate": self._kill_migration, "restore": self._kill_restore}
        if phase in alive:
            alive[phase]()
        elif phase in ASKED:
            self._kill_asked(phase)
        else:
            self._kill_fated(phase)
        self.node.skew_s = self.rng.choice(SKEWS_S)
        if self.node.process is None or self.node.process.poll() is not None:
            self.node.start("run")
        self.node.wait_ready()
        self._check()
        self._make_room()
        if self.kills % 10 < 1 + (phase in ALONE):
            self.say(f"   {self.kills:4} of {self.plan.rounds} kills, {len(self.violations)} violations")

    def _died(self, node: MarkedNode, *more: str) -> None:
        phases = {*node.kill(), *more}
        self.kills += 1
        self.fell.update(phases or {"none of these phases"})

    # ---- deaths

    def _kill_fated(self, phase: str) -> None:
        self.node.doom(f"{phase}:{self.rng.randint(1, FATED[phase])}")
        deadline, asked = time.monotonic() + FATE_S, list[Asked]()
        while self.node.wait(0.05) is None and time.monotonic() < deadline:
            if phase in NEEDS and all(each.wait(0) for each in asked):
                asked.append(self._ask(NEEDS[phase]))
        if self.node.wait(0) is None:
            self.met[f"rounds without {phase}"] += 1
        self._died(self.node)
        for each in asked:
            self._settle(each)

    def _kill_asked(self, what: str) -> None:
        """Within the time that it takes, as far as that is known."""
        asked = self._ask(what)
        asked.wait(self.rng.uniform(0.0, 1.1) * self.took.get(what, 0.3))
        self._died(self.node, *(() if asked.wait(0) else (what,)))
        self._settle(asked)

    def _settle(self, asked: Asked | None) -> None:
        if asked is None:
            return
        asked.wait()
        if asked.fault:
            self.violations.append(asked.fault)
        if asked.done:
            self.took[asked.what] = 0.5 * self.took.get(asked.what, asked.took_s) + 0.5 * asked.took_s
            self.met[f"{asked.what}, done before the kill"] += 1

    def _kill_at_start(self) -> None:
        self._died(self.node)
        self.node.start("run")
        time.sleep(self.rng.uniform(*START_S))
        self._died(self.node, "start")

    def _kill_migration(self) -> None:
        """And once more, or not; in between the node must not run."""
        self._died(self.node)
        self.met["rows of an older form"] += grow_old(Folder(self.node.folder))
        for _ in range(self.rng.randint(1, 2)):
            self.node.start("migrate", fate=f"migrate:{self.rng.randint(1, MIGRATION_MOMENTS)}")
            if self.node.wait(FATE_S) != 0:
                self._died(self.node)
        if self.node.wait(0) != 0:
            self._expect_refusal(self.node, "offgrid-node migrate")
            self._expect_done(self.node, "migrate")

    def _kill_restore(self) -> None:
        """In another folder; then it must come to its end, and have all that was answered for before the backup."""
        before = [(page, page.durable) for page in self.diary.readable()]
        deadline = time.monotonic() + COMMAND_S
        while True:
            asked = self._asked("a backup to come back from", self._back_up_for_twin)
            asked.wait()
            if asked.done:
                break
            if asked.fault or time.monotonic() > deadline:
                self.violations.append(asked.fault or "no backup could be made: another one was always under way")
                return
            time.sleep(POLL_S)
        command = ["restore", "--backup", str(self.twin_backup), "--recovery-secret", str(self.secret_file)]
        command += ["--wrapped-keys", str(self.backups / WRAPPED_KEYS), "--role", "core"]
        command += ["--key", str(self.node.folder / "keys" / "node.key")]
        command += [f"--set={key}={str(value).lower()}" for key, value in SETTINGS.items()]
        for _ in range(self.rng.randint(1, 2)):
            self.twin.start(*command, fate=f"restore:{self.rng.randint(1, RESTORE_MOMENTS)}")
            if self.twin.wait(FATE_S) != 0:
                self._died(self.twin)
        exists = (self.twin.folder / "offgrid.toml").exists()
        if not exists:
            if self.twin.folder.exists() and self.rng.random() < 0.5:
                self._expect_refusal(self.twin, "offgrid")
            self._expect_done(self.twin, *command)
        self._check_twin(before)
        shutil.rmtree(self.twin.folder)
        self.twin_backup.unlink()

    @property
    def twin_backup(self) -> Path:
        return self.out / "twin.zip"

    def _back_up_for_twin(self, client: Client) -> None:
        *_, _ = client.backups.create(self.twin_backup)

    def _expect_refusal(self, node: MarkedNode, word: str) -> None:
        node.start("run")
        code = node.wait(COMMAND_S)
        said = node.log_tail(3)
        if not code or word not in said or "Traceback" in said:
            self.violations.append(f"a node that is half done runs, or does not say why not: {code} {said}")
            node.kill()

    def _expect_done(self, node: MarkedNode, *command: str) -> None:
        node.start(*command)
        code = node.wait(COMMAND_S)
        if code != 0:
            raise Unavailable(f"{command[0]} did not come to its end: {code} {node.log_tail()}", reason="NotDone")

    # ---- what the node is asked for

    def _ask(self, what: str) -> Asked:
        works = {"compact": self._compact, "backup": self._back_up, "purge": self._purge}
        works |= {"import": self._import, "snapshot now": self._take_snapshots}
        return self._asked(what, works[what])

    def _asked(self, what: str, work: Callable[[Client], Any]) -> Asked:
        return Asked(what, work, self.node)

    def _compact(self, client: Client) -> None:
        *_, _ = client.backups.compact()

    def _back_up(self, client: Client) -> None:
        *_, last = client.backups.create()
        if not Path(last.backup.path).exists() and not self._is_rotated(last.backup.path):
            self.violations.append(f"{last.backup.path} was made, and is not there")

    def _is_rotated(self, path: str) -> bool:
        return any(each.name > Path(path).name for each in backups_in(self.backups))

    def _take_snapshots(self, client: Client) -> None:
        for page in self.diary.readable():
            if page.durable:
                client.sessions.snapshot(page.session_id)

    def _purge(self, client: Client) -> None:
        """The oldest that is over, or one that is still recorded in."""
        over = self.diary.over()
        if over:
            self._purge_one(client, over[0])

    def _purge_one(self, client: Client, page: Page) -> None:
        self.diary.see_keys(self.node.data)
        page.purging = True
        client.sessions.purge([page.session_id])
        page.purged = True
        self.met["sessions purged"] += 1

    def _import(self, client: Client) -> None:
        """What is exported and imported comes to the same; gone afterwards."""
        over = self.diary.over()
        if not over:
            return
        page, file = self.rng.choice(over), self.out / "export.json"
        try:
            client.sessions.export(page.session_id, file, content=True)
        except OffgridError as error:
            if error.reason not in ("NothingKept", "SessionEmpty"):
                raise
            return
        made = client.sessions.import_export(file).session
        there, here = client.sessions.show(page.session_id), client.sessions.show(made.session_id)
        if (there.number, there.digest) != (here.number, here.digest):
            self.violations.append(f"{page.said.name} and {made.session_id}, its import, come to different states")
        client.sessions.purge([made.session_id])
        self.met["imports"] += 1

    # ---- what must be true

    def _check(self) -> None:
        with self.node.client(60.0) as client:
            for page in self.diary.all():
                if page.purging and not page.purged:
                    self._check_goes_on(client, page)
                    client.sessions.purge([page.session_id])
                    page.purged = True
            self.diary.see_keys(self.node.data)
            self.violations += self.diary.check(client)
            self.violations += [f"notice: {notice}" for notice in client.mesh.status().notices if "damaged" in notice]
        self.violations += self.diary.find_shredded([self.node.folder])
        self.violations += [wrong for seat in self.seats for wrong in seat.broken]
        self.violations += [f"log: {line}" for line in told_of(self.node, DEFECTS)]
        self.violations += audit_backups(self.backups, self.secret, self.diary.all())
        self.met["backups checked"] += len(backups_in(self.backups))
        left = left_in(self.node.folder)
        self.met["files left by a death, at most"] = max(self.met["files left by a death, at most"], len(left))
        self.violations += audit_left(left)

    def _check_goes_on(self, client: Client, page: Page) -> None:
        """A purge that was noted ends by itself after the start, and its key goes."""
        if client.sessions.get(page.session_id).purged_us:
            deadline = time.monotonic() + GOES_ON_S
            while page.session_id in keys_in(self.node.data):
                if time.monotonic() > deadline:
                    self.violations.append(f"{page.said.name} is purged, and its key is there still")
                    return
                time.sleep(POLL_S)
            self.met["purges ended by another life"] += 1

    def _check_twin(self, before: list[tuple[Page, int]]) -> None:
        """It comes back as a node that has all of them; two of one name would be seen, if there were others."""
        self.twin.start("run")
        self.twin.wait_ready()
        with self.twin.client(60.0) as client:
            told = {session.session_id: session for session in client.sessions.list()}
            for page, durable in before:
                session = told.get(page.session_id)
                if session is None or session.recorded < durable:
                    self.violations.append(f"twin: of {page.said.name} {durable} events were backed up: {session}")
                elif not session.purged_us:
                    shown = client.sessions.show(page.session_id)
                    if shown.digest != page.said.digest(shown.number):
                        self.violations.append(f"twin: {page.said.name} does not come to the same")
        self.met["restores"] += 1
        self.twin.kill()

    def _make_room(self) -> None:
        """So that a run may be as long as it likes."""
        with self.node.client(60.0) as client:
            for page in self.diary.over()[:-OVER_MAX]:
                self._purge_one(client, page)
        self.diary.forget(SHREDDED_MAX)

    def _end(self) -> None:
        for seat in self.seats:
            seat.stopping.set()
        for seat in self.seats:
            seat.join(CALL_S * 3)
        self._check()
        code = self.node.stop()
        if code != 0:
            self.violations.append(f"it did not stop in order: exit code {code}")
        store = open_store(Folder(self.node.folder).config({}), create=False)
        try:
            self.violations += [f"its store: {wrong}" for wrong in store.verify()]
            self.met["events of the journal dropped"] = store.journal_floor
            self.met["events of the journal"] = store.journal_seq
        finally:
            store.close()

    def _toll(self, seconds: float) -> Toll:
        recorded = sum(page.durable for page in self.diary.all())
        toll = Toll(
            {
                "kills": self.kills,
                **{f"kills in {phase}": count for phase, count in sorted(self.fell.items())},
                **dict(sorted(self.met.items())),
                "events answered for, of sessions in mind": recorded,
                "seconds": round(seconds, 1),
                "violations": len(self.violations),
            },
            self.violations,
        )
        for what, count in toll.figures.items():
            self.say(f"   {what:42} {count:>10,}")
        return toll
