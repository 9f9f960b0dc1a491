"""Epochs of a real mesh: its witnesses come, go, weigh more, fork, are restored and die by kill -9, and payments go on.

Six witnesses in turn, two payers, a node that is off for longer than blocks are kept, and one that is new at the end.
Then money is conserved, every transfer is final, all nodes agree, every store and every running node's ledger verify,
and who has only the mesh's id checks receipts of the first epoch.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec

from offgrid.client import Client, OffgridError
from offgrid.client.papers import document
from offgrid.json_form import json_of
from offgrid.v1 import ledger_pb2
from offgrid_node.local_mesh import LocalMesh, LocalNode
from offgrid_tools import replaying, verifying
from offgrid_tools.soak.audit import audit_stores
from offgrid_tools.soak.audit_money import audit_money, settle_money
from offgrid_tools.soak.chance import chance
from offgrid_tools.soak.kills import Killer, open_ledger
from offgrid_tools.soak.patience import STILL_S, Patience
from offgrid_tools.soak.paying import Paying
from offgrid_tools.soak.toll import Say, Toll, at_home

FIRST = ("w1", "w2", "w3", "w4")  # w1 founds the mesh and is its admin
ADDED, PAYER, AWAY, NEW = "w5", "payer", "away", "new"
NODES = {name: ["core"] for name in (*FIRST, ADDED, PAYER, AWAY)}
PAYERS = (PAYER, "w1")
EPOCH_S = 60  # the shortest that is allowed; orders end most of them before
MILLI = 1_000
HEAVY_MILLI = 2 * MILLI
POLL_S = 0.2
GROWN = 3  # blocks that show that a node says something
STAGES = 5  # between which the kills are shared


class Stuck(Exception):
    """What must come true has not."""


class Plan(msgspec.Struct, frozen=True):
    seed: int
    kills: int


class Story(msgspec.Struct):
    """What happens to the mesh, one thing after the other."""

    mesh: LocalMesh
    killer: Killer
    plan: Plan
    say: Say
    committee: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(FIRST, MILLI))
    receipts: list[tuple[bytes, bytes]] = msgspec.field(default_factory=list)  # with their transactions

    _first_tx: str = ""

    # ---- stages

    def first_epoch(self) -> None:
        """A receipt of it; and one node goes, for as long as the others keep no block of that time."""
        with self.mesh[PAYER].client() as client:
            paid = client.ledger.transfer(AWAY, 1).transfer_id
            self._until(f"{paid} is final", lambda: _is_final(client, paid))
            self._first_tx = client.ledger.transaction(paid).tx_id
        self.keep_receipt()
        self.mesh[AWAY].stop()

    def keep_receipt(self) -> None:
        with self.mesh[PAYER].client() as client:
            found = client.ledger.receipt(self._first_tx).receipt
            self.receipts.append((found, json.dumps(json_of(client.ledger.transaction(self._first_tx))).encode()))

    def turns(self) -> None:
        """One comes, one weighs more, one goes; each while witnesses die."""
        self._turn("one more witness", {**self.committee, ADDED: MILLI}, add={ADDED: MILLI})
        self._turn("one weighs more", {**self.committee, ADDED: HEAVY_MILLI}, weigh={ADDED: HEAVY_MILLI})
        self._turn("one witness less", {n: w for n, w in self.committee.items() if n != "w4"}, remove=("w4",))

    def fork(self) -> None:
        """Two copies of one folder run, each with one other node: once these two meet, they hold what shows it."""
        victim, heads = self.mesh["w3"], list[ledger_pb2.Head]()
        away = {node.name for node in self.mesh.nodes.values() if not node.alive}
        self.mesh.stop()
        twin = victim.folder.with_name(f"{victim.name}-twin")
        _copy(victim.folder, twin)
        for hears, folder in (("w4", victim.folder), (ADDED, twin)):
            listener, copy = self.mesh[hears], LocalNode(victim.name, victim.roles, folder, victim.settings)
            self._start([listener, copy])
            heads.append(self._speaks(copy, listener, amount_micro=len(heads) + 1))
            listener.kill()
            copy.kill()
        if heads[0].height != heads[1].height or heads[0].digest == heads[1].digest:
            raise Stuck(f"two copies of {victim.name} did not fork: {heads}")
        self._start([node for node in self.mesh.nodes.values() if node.name not in away])
        with self._killing(spare=victim):
            del self.committee[victim.name]
            self._until("whoever forked witnesses no more", lambda: self._all_have(self.committee))

    def restore(self) -> None:
        """A witness comes back from an old copy of its folder: mute, until its key is another."""
        victim = self.mesh["w2"]
        victim.stop()
        old = victim.folder.with_name(f"{victim.name}-old")
        _copy(victim.folder, old)
        self._start([victim])
        before = self._head_of(victim).height
        self._until(f"{victim.name} speaks", lambda: self._head_of(victim).height >= before + GROWN)
        victim.kill()
        shutil.rmtree(victim.folder)
        old.rename(victim.folder)
        self._start([victim])
        self._until(f"{victim.name} finds out that it is old", lambda: bool(self._status(victim).muted_why))
        victim.stop()
        victim.run("rotate", "identity")
        if victim.wait_stopped() != 0:
            raise Stuck(f"{victim.name} did not get another key: {victim.log_tail()}")
        with self._killing(spare=victim):
            self._start([victim])
            self._until(f"{victim.name} may speak", lambda: not self._status(victim).muted_why)
            before = self._head_of(victim).height
            self._until(f"{victim.name} speaks", lambda: self._head_of(victim).height >= before + GROWN)

    def come_back(self) -> None:
        """Who was away for longer than blocks are kept, and who has never been there, begin at a checkpoint."""
        with self._killing():
            self._until("blocks are forgotten", lambda: self._status(self.mesh.founder).oldest_epoch > 0)
        self._start([self.mesh[AWAY]])
        self.mesh.join(NEW, ["core"])
        self._until("all are in one epoch", lambda: self._all_have(self.committee) and len(self._epochs()) == 1)

    # ---- inside

    def _turn(self, what: str, wanted: Mapping[str, int], **order: object) -> None:
        self.committee = dict(wanted)
        with self._killing():
            self._until(f"{what}: it is ordered", lambda: self._ordered(**order))
            self._until(f"{what}: all nodes have the committee", lambda: self._all_have(wanted))
        self.say(f"   {what}, epoch {max(self._epochs())}, {self.killer.done} kills")

    def _ordered(self, **order: object) -> bool:
        """A call that died may have done its work: so it is asked first."""
        with self.mesh.founder.client() as client:
            status = client.ledger.status()
            if not status.orders and _committee(status) != self.committee:
                client.ledger.order_committee(**order)  # type: ignore[arg-type]
        return True

    def _all_have(self, wanted: Mapping[str, int]) -> bool:
        return all(_committee(self._status(node)) == wanted for node in self.mesh.nodes.values() if node.alive)

    def _epochs(self) -> set[int]:
        return {self._status(node).epoch for node in self.mesh.nodes.values() if node.alive}

    def _status(self, node: LocalNode) -> ledger_pb2.GetLedgerStatusResponse:
        with node.client() as client:
            return client.ledger.status()

    def _head_of(self, author: LocalNode, at: LocalNode | None = None) -> ledger_pb2.Head:
        heads = self._status(at or self.mesh[PAYER]).heads
        return next((head for head in heads if head.author == author.node_id), ledger_pb2.Head())

    def _speaks(self, node: LocalNode, listener: LocalNode, amount_micro: int) -> ledger_pb2.Head:
        """Its head, once it has said something that the other has heard."""
        before = self._head_of(node, at=node).height
        with node.client() as client:
            client.ledger.transfer(PAYER, amount_micro)
        self._until(f"{node.name} speaks", lambda: self._head_of(node, at=listener).height > before)
        return self._head_of(node, at=node)

    def _start(self, nodes: Sequence[LocalNode]) -> None:
        for node in nodes:
            node.run("run")
        for node in nodes:
            node.wait_ready()

    @contextmanager
    def _killing(self, spare: LocalNode | None = None) -> Iterator[None]:
        """Witnesses of now die meanwhile, but for this one."""
        self.killer.nodes = [self.mesh[name] for name in self.committee if spare is None or name != spare.name]
        until = min(self.plan.kills, self.killer.done + -(-self.plan.kills // STAGES))
        thread = threading.Thread(target=self.killer.run, args=(until,), daemon=True)
        thread.start()
        try:
            yield
        finally:
            thread.join()

    def _until(self, what: str, question: Callable[[], bool]) -> None:
        """Of nodes that may be dead just now."""
        deadline = time.monotonic() + STILL_S
        while time.monotonic() < deadline:
            with suppress(OffgridError):
                if question():
                    return
            time.sleep(POLL_S)
        raise Stuck(f"not within {STILL_S:.0f} s: {what}; {'; '.join(self._standing())}")

    def _standing(self) -> Iterator[str]:
        for node in self.mesh.nodes.values():
            with suppress(OffgridError):
                status = self._status(node)
                said = [*status.waits, *status.notices, *filter(None, [status.muted_why])]
                yield f"{node.name} is in epoch {status.epoch} of {_committee(status)}, {status.pending} open: {said}"


def soak_epochs(plan: Plan, folder: Path | None, say: Say) -> Toll:
    """See `at_home` for what becomes of the mesh's folder."""
    return at_home("epochs", folder, lambda home: _soak(plan, home, say), say)


def _soak(plan: Plan, home: Path, say: Say) -> Toll:
    began, toll = time.monotonic(), Toll()
    with LocalMesh(home, "epochs", NODES, economy__epoch=EPOCH_S, node__log_level="warning") as mesh:
        mesh.start()
        mesh.wait_alive()
        open_ledger(mesh, witnesses=dict.fromkeys(FIRST, MILLI))
        payings = [_paying(mesh, name, plan.seed) for name in PAYERS]
        threads = [threading.Thread(target=paying.run, daemon=True) for paying in payings]
        killer = Killer("witness", [], plan.kills, chance(f"{plan.seed}/kill"), say)
        story = Story(mesh, killer, plan, say)
        try:
            for number, stage in enumerate(
                (story.first_epoch, story.turns, story.fork, story.restore, story.come_back)
            ):
                stage()
                say(f"   {stage.__name__.replace('_', ' ')} after {time.monotonic() - began:.0f} s")
                if number == 0:
                    for thread in threads:
                        thread.start()
            story.keep_receipt()
        except Stuck as stuck:
            toll.violations.append(str(stuck))
        for paying in payings:
            paying.stop()
        for thread in threads:
            thread.join()
        paid = [each for paying in payings for each in paying.paid]
        money, unsettled = settle_money(mesh, PAYER, paid, Patience())
        toll.violations += killer.violations + [v for paying in payings for v in paying.violations] + unsettled
        if not toll.violations:
            toll.violations += [*_unverified(mesh, lambda node: replaying.online(node.client())), *_unproved(story)]
        codes = mesh.stop()
        toll.violations += [
            f"{name} did not stop in order: exit code {code}" for name, code in codes.items() if code != 0
        ]
    stores = audit_stores(mesh, [])
    toll.violations += stores.broken + audit_money(money, paid, [])
    toll.violations += _unverified(mesh, lambda node: replaying.offline(node.folder))
    toll.figures = {
        "kills": killer.done,
        "transfers final": len(money.final),
        "nodes that agree on money": len(money.balances) if money.equal else 0,
        "seconds": round(time.monotonic() - began),
        "violations": len(toll.violations),
    }
    for what, count in toll.figures.items():
        say(f"   {what:26} {count:>10,}")
    return toll


def _paying(mesh: LocalMesh, name: str, seed: int) -> Paying:
    payees = [other for other in NODES if other != name]
    return Paying(name, chance(f"{seed}/pay/{name}"), lambda: mesh[name].client(5.0), payees=payees)


def _unverified(mesh: LocalMesh, verify: Callable[[LocalNode], replaying.Report]) -> Iterator[str]:
    for node in mesh.nodes.values():
        try:
            findings = verify(node).findings
        except replaying.FAULTS as fault:
            yield f"{node.name}: {fault}"
        else:
            yield from (f"{node.name}: {finding.where}: {finding.what}" for finding in findings)


def _unproved(story: Story) -> Iterator[str]:
    """By papers of a node that was not there then, and the mesh's id."""
    with story.mesh[NEW].client() as client:
        papers = json.dumps(document(client.ledger.genesis(), client.ledger.epochs(), client.mesh.proof)).encode()
        mesh_id = client.mesh.status().mesh_id
    for receipt, tx in story.receipts:
        verdict = verifying.check_light(receipt, tx, papers, mesh=verifying.mesh_named(mesh_id))
        yield from (f"a receipt of the first epoch: {each.field}: {each.what}" for each in verdict.problems)


def _is_final(client: Client, tx_id: str) -> bool:
    return client.ledger.transaction(tx_id).state == ledger_pb2.TX_STATE_FINAL


def _committee(status: ledger_pb2.GetLedgerStatusResponse) -> dict[str, int]:
    return {witness.name: witness.weight_milli for witness in status.witnesses}


def _copy(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.sock*"))
