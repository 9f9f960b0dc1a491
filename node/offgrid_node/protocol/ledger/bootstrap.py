"""How a node begins at a checkpoint: one that is new, or was away for so long that nobody has the blocks that it lacks.

    behind       peers that it meets keep blocks of later epochs alone (`oldest`), or of its own epoch alone while it
                 lacks blocks behind the checkpoint where that began
    asking       after WAIT_MS, or PATIENCE_MS where somebody says that it has them: it asks one of those peers
    checkpoints  from this node's epoch on; each names the one before it and who witnesses the next epoch, and is sealed
                 by more than a third of its own epoch's committee, so by an honest witness: it is final
    accounts     of the last one, page by page, into rows of their own; together they must have its very root
    entering     accounts, heads and epoch change in one batch, what was said of open slots is forgotten, and the
                 machine is loaded anew; blocks come from there on as they always do

Nothing that a peer says is believed but what is signed or has the root, so a liar costs STALL_MS, or the pages that it
made up: whoever kept this node waiting or brought what does not fit is asked last, and after ever longer pauses. A
crash costs the page that was under way. Until it enters, the node goes on as it was, and if blocks come meanwhile after
all, it needs none of this.

What was open here is final, void or open still by its account's last slot (endings.py), where that tells. What else
happened to accounts while this node was away shows in their balances alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec
from google.protobuf.message import Message

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.effects import Answered, Call
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.ids import NODE_ID_BYTES, node_id_from
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.checkpoints import Base, Checkpoint, account_leaves, cut_account, heads_digest
from offgrid_node.protocol.ledger.commands import CHECKPOINTS_MAX, PUSH_SIGNATURES_MAX, PushCheckpoints, Sealed
from offgrid_node.protocol.ledger.committee import Committee
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.heads import HEADS_MAX
from offgrid_node.protocol.ledger.receipts import Final
from offgrid_node.protocol.ledger.snapshots import ENTRY_BYTES, PAGE_ACCOUNTS
from offgrid_node.protocol.ledger.tables import BOOT, BOOT_KEY, CHECKPOINTS, META, SEALS, number_key
from offgrid_node.protocol.merkle import root_of

WAIT_MS, PATIENCE_MS = 10_000, 60_000
STALL_MS, AGAIN_MS = 10_000, 500
DOUBLINGS_MAX = 7  # of AGAIN_MS, and no longer than PATIENCE_MS
CALL_TIMEOUT_MS = 8_000


class BootTag(msgspec.Struct, frozen=True):
    """Which of our calls has ended. `after`: the page that was asked for."""

    what: str
    node: str
    after: bytes = b""


class Bootstrap:
    """`ready` is what the machine is to begin at, once everything is here; `entered`: it has."""

    def __init__(self, salt: bytes, draft: Draft, epochs: Epochs, chains: Chains) -> None:
        self._salt, self._draft, self._epochs, self._chains = salt, draft, epochs, chains
        self._met: dict[str, int] = {}  # peers → the first epoch whose blocks they all keep
        self._failed: Counter[str] = Counter()
        self._asked = ""
        self._since_ms = 0  # when it was found to be behind
        self._due_ms: int | None = None
        self._chain: list[tuple[Sealed, bytes]] = []  # with digests, one after the other, from this epoch on
        self._row: ledger_pb2.BootRow | None = None
        self._leaves: list[bytes] = []  # of the accounts that are here
        self._count = 0
        self.ready: ledger_pb2.CheckpointRow | None = None
        self._ready_since: Now | None = None
        self.entered = False

    def load(self, now: Now) -> None:
        self._row = self._draft.row(META, BOOT_KEY, ledger_pb2.BootRow)
        if self._row is not None:
            here = [key + row for key, row in self._draft.committed(BOOT, b"") if key <= self._row.after]
            self._leaves, self._count = [*account_leaves(here, self._salt)] if here else [], len(here)
            self._due_ms = now.mono_ms
            self._finish()

    # ---- questions

    def awaits(self, node: str) -> bool:
        """Whether this peer was asked for checkpoints."""
        return node == self._asked and self._row is None

    def enters(self, now: Now) -> bool:
        """Whether everything is in committed rows: all steps of a batch see one instant."""
        return self.ready is not None and self._ready_since != now

    def deadline_ms(self) -> int | None:
        return self._due_ms

    # ---- inputs

    def on_met(self, node: str, oldest: int, now: Now) -> None:
        """A peer has answered, and keeps all blocks from that epoch on."""
        self._met[node] = oldest
        if self._due_ms is None and self._is_behind(oldest):
            self._since_ms, self._due_ms = now.mono_ms, now.mono_ms + WAIT_MS

    def on_down(self, node: str) -> None:
        self._met.pop(node, None)

    def on_time(self, now: Now) -> None:
        if self._due_ms is None or self._due_ms > now.mono_ms or self.ready is not None:
            return
        number = self._epochs.number
        if self._row is not None and self._target.epoch < number:
            self._drop()  # blocks came after all
        if self._asked:
            self._turn_to_another(now)
            return
        helpful = self._helpful()
        if not helpful:
            self._due_ms = None if self._row is None else now.mono_ms + STALL_MS
        elif self._row is None and len(helpful) < len(self._met) and now.mono_ms < self._since_ms + PATIENCE_MS:
            self._due_ms = self._since_ms + PATIENCE_MS  # somebody says that it has the blocks
        else:
            self._asked = min(helpful, key=lambda node: self._failed[node])
            self._go_on(now)

    def on_checkpoints(self, command: PushCheckpoints, now: Now) -> None:
        """From whoever was asked."""
        if not self.awaits(command.sender):
            return
        for sealed in command.checkpoints:
            if not self._follows(sealed):
                self._turn_to_another(now)
                return
            self._chain.append((sealed, sealed.checkpoint.digest(self._salt)))
        last = self._chain[-1][0].checkpoint if self._chain else None
        if not command.checkpoints or last is None:
            self._turn_to_another(now)
        elif not command.heads:
            self._go_on(now)
        elif heads_digest(command.heads, self._salt) == last.heads:
            self._begin(command.heads)
            self._go_on(now)
        else:
            self._turn_to_another(now)

    def on_answered(self, tag: BootTag, answer: Answered, now: Now) -> None:
        if tag.node != self._asked:
            return
        reply = answer.reply
        if isinstance(reply, ledger_pb2.AskCheckpointsResponse):
            return  # they come by themselves
        if not isinstance(reply, ledger_pb2.ListEpochAccountsResponse):
            reply = None
        if reply is not None and self._row is not None and tag.after == self._row.after and self._take(reply):
            if self.ready is None:
                self._go_on(now)
            else:
                self._ready_since, self._due_ms = now, now.mono_ms
            return
        if answer.fault is not None and answer.fault.reason == "EpochGone":
            self._drop()
        self._turn_to_another(now)

    # ---- inside

    def _helpful(self) -> list[str]:
        """Whom it may ask."""
        return [node for node, oldest in self._met.items() if self._row is not None or self._is_behind(oldest)]

    def _is_behind(self, oldest: int) -> bool:
        """Whether somebody who keeps blocks from that epoch on lacks some that this node needs. It may have entered its
        epoch by the accounts' root, without all blocks behind the checkpoint."""
        number = self._epochs.number
        return oldest > number or (oldest == number and not self._chains.has_cut())

    @property
    def _target(self) -> Checkpoint:
        assert self._row is not None, "asked while there is one"
        return Checkpoint.decode(self._row.checkpoint.body)

    def _go_on(self, now: Now) -> None:
        """The next question to whoever is asked."""
        node = self._asked
        if self._row is None:
            first = self._epochs.number + len(self._chain)
            request: Message = ledger_pb2.AskCheckpointsRequest(first=first)
            tag = BootTag("AskCheckpoints", node)
        else:
            after = self._row.after
            request = ledger_pb2.ListEpochAccountsRequest(epoch=self._target.epoch + 1, after=after)
            tag = BootTag("ListEpochAccounts", node, after)
        self._draft.send(Call("ledger", node, f"offgrid.v1.LedgerService/{tag.what}", request, tag, CALL_TIMEOUT_MS))
        self._due_ms = now.mono_ms + STALL_MS

    def _turn_to_another(self, now: Now) -> None:
        """After a pause that grows with how often all have failed: it may be that liars alone say that it is behind."""
        self._failed[self._asked] += 1
        self._asked = ""
        if self._row is None:
            self._chain.clear()
        fewest = min((self._failed[node] for node in self._helpful()), default=0)
        self._due_ms = now.mono_ms + min(AGAIN_MS << min(fewest, DOUBLINGS_MAX), PATIENCE_MS)

    def _follows(self, sealed: Sealed) -> bool:
        """Whether it ends the epoch behind the last one that is known, and an honest witness of that has sealed it."""
        digest, number, committee = self._epochs.previous, self._epochs.number, self._epochs.committee
        if self._chain:
            last, digest = self._chain[-1]
            number, committee = last.checkpoint.epoch + 1, Committee(last.checkpoint.witnesses)
        body, mask = sealed.checkpoint, 0
        for node, _ in sealed.seals:
            mask |= committee.bit_of(node)
        fits = (body.ledger, body.epoch, body.previous) == (self._epochs.ledger, number, digest)
        return fits and committee.one_is_honest(mask)

    def _begin(self, heads: Sequence[Base]) -> None:
        """All checkpoints are here: now the accounts."""
        for sealed, _ in self._chain[:-1]:
            row = ledger_pb2.CheckpointRow(body=sealed.checkpoint.encode())
            self._draft.put(CHECKPOINTS, number_key(sealed.checkpoint.epoch), row)
        committee = self._epochs.committee
        for sealed, digest in self._chain:
            body = sealed.checkpoint
            for node, signature in sealed.seals:  # for others that begin after it
                if committee.bit_of(node):
                    self._draft.put_bytes(SEALS, number_key(body.epoch) + node, digest + signature)
            committee = Committee(body.witnesses)
        row = ledger_pb2.CheckpointRow(body=self._chain[-1][0].checkpoint.encode())
        for head in heads:
            row.heads.add(author=head.author, height=head.height, digest=head.digest, forked_at=head.forked_at)
        self._chain.clear()
        self._row, self._leaves, self._count = ledger_pb2.BootRow(checkpoint=row), [], 0
        self._draft.put(META, BOOT_KEY, self._row)

    def _take(self, reply: ledger_pb2.ListEpochAccountsResponse) -> bool:
        """Whether it was a page that may be the next one."""
        assert self._row is not None, "a page of it was asked for"
        raw, body = reply.accounts, self._target
        entries = [raw[at : at + ENTRY_BYTES] for at in range(0, len(raw), ENTRY_BYTES)]
        names = [self._row.after, *(entry[:NODE_ID_BYTES] for entry in entries)]
        whole = len(entries) == PAGE_ACCOUNTS or (reply.last and 0 < len(entries) <= PAGE_ACCOUNTS)
        if len(raw) % ENTRY_BYTES or not whole or any(a >= b for a, b in pairwise(names)):
            return False
        leaves, count = [*self._leaves, *account_leaves(entries, self._salt)], self._count + len(entries)
        if (reply.last and (root_of(leaves), count) != (body.accounts, body.count)) or count > body.count:
            self._row.after, self._leaves, self._count = b"", [], 0  # somebody has made up something of it
            self._wipe()
            self._draft.put(META, BOOT_KEY, self._row)
            return False
        self._leaves, self._count = leaves, count
        for entry in entries:
            self._draft.put_bytes(BOOT, entry[:NODE_ID_BYTES], entry[NODE_ID_BYTES:])
        self._row.after = names[-1]
        self._draft.put(META, BOOT_KEY, self._row)
        self._finish()
        return True

    def _finish(self) -> None:
        """It is ready if all accounts are here."""
        if self._row is not None and self._leaves:
            body = self._target
            if (root_of(self._leaves), self._count) == (body.accounts, body.count):
                self.ready = self._row.checkpoint

    def _drop(self) -> None:
        self._row, self._leaves, self._count = None, [], 0
        self._draft.delete(META, BOOT_KEY)
        self._wipe()

    def _wipe(self) -> None:
        for key, _ in self._draft.committed(BOOT, b""):
            self._draft.delete(BOOT, key)


def served(draft: Draft, epochs: Epochs, salt: bytes, oldest: int, first: int) -> ledger_pb2.PushCheckpointsRequest:
    """What somebody who asks for checkpoints from an epoch's on is brought: as many as one call may carry, with all
    their seals, for which of them are good is not known here; with the last one that can be begun at, its heads. Behind
    one that can be, another is brought only with seals of a quorum: liars' left out, enough of those are good."""
    request, carried = ledger_pb2.PushCheckpointsRequest(), 0
    for epoch in range(first, min(epochs.number, first + CHECKPOINTS_MAX)):
        row = draft.row(CHECKPOINTS, number_key(epoch), ledger_pb2.CheckpointRow)
        committee = epochs.committee_of(epoch)
        if row is None or committee is None:
            break
        digest, seals, mask = Checkpoint.decode(row.body).digest(salt), list[ledger_pb2.SealOf](), 0
        for key, said in draft.committed(SEALS, number_key(epoch), prefix=number_key(epoch)):
            node = key[-NODE_ID_BYTES:]
            if said[: len(digest)] == digest:
                mask |= committee.bit_of(node)
                seals.append(ledger_pb2.SealOf(witness=node, signature=said[len(digest) :]))
        carried += len(seals)
        enough = committee.enough(mask) if request.heads else committee.one_is_honest(mask)
        if not enough or carried > PUSH_SIGNATURES_MAX:
            break
        request.checkpoints.add(body=row.body, seals=seals)
        if epoch + 1 >= oldest and len(row.heads):
            del request.heads[:]
            request.heads.extend(row.heads)
    if request.checkpoints and Checkpoint.decode(request.checkpoints[-1].body).epoch + 1 < oldest:
        del request.heads[:]
    return request


def checked(request: ledger_pb2.PushCheckpointsRequest, ledger: bytes, sender: str, salt: bytes,
            signed: Callable[[str, bytes, bytes], bool]) -> PushCheckpoints:  # fmt: skip
    """What a peer has brought, with those of its seals that are good: `signed` answers whether a node has signed a
    digest so. Raises PeerFault (TooManyCheckpoints, MalformedBody)."""
    seals = sum(len(one.seals) for one in request.checkpoints)
    if len(request.checkpoints) > CHECKPOINTS_MAX or seals > PUSH_SIGNATURES_MAX or len(request.heads) > HEADS_MAX:
        raise PeerFault(
            f"{len(request.checkpoints)} checkpoints, {seals} seals, {len(request.heads)} heads; at most "
            f"{CHECKPOINTS_MAX}, {PUSH_SIGNATURES_MAX} and {HEADS_MAX} are allowed",
            reason="TooManyCheckpoints",
        )
    found = list[Sealed]()
    for one in request.checkpoints:
        body = Checkpoint.decode(one.body)
        final = Final(ledger, cut_account(ledger, body.epoch, salt), 0, body.digest(salt), body.epoch).digest(salt)
        good = (
            (seal.witness, seal.signature)
            for seal in one.seals
            if signed(node_id_from(seal.witness), final, seal.signature)
        )
        found.append(Sealed(body, tuple(good)))
    heads = tuple(Base(head.author, head.height, head.digest, head.forked_at) for head in request.heads)
    return PushCheckpoints(sender, tuple(found), heads)
