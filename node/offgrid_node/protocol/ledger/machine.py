"""The ledger domain's machine: hands each input to the part that it concerns and closes the step.

Nothing happens before the ledger is open: before an admin has opened it here, or a peer has brought the genesis. At
the end of a step everything that this node has to say goes into one block, in the batch with the rows of what it says.
A block is BLOCK_ITEMS_MAX, BLOCK_SIGNATURES_MAX and BLOCK_BYTES_MAX at most; a step that has more to say makes more,
and so does one that speaks in two epochs.

With the economy off the machine is silent: it refuses commands, ignores costs and spreads nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Answered, Asked, Effect, Rows, Woke
from offgrid_node.protocol.errors import AlreadyExists, FailedPrecondition, Fault, Internal, Unavailable
from offgrid_node.protocol.etypes import EventType
from offgrid_node.protocol.events import AdminChanged, AdminsKnown, CostIncurred, KeyReplaced, PeerDown, PeerUp
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger import commands
from offgrid_node.protocol.ledger.beacon import Beacon, Listener
from offgrid_node.protocol.ledger.beginning import begin_at
from offgrid_node.protocol.ledger.blocks import seal_block
from offgrid_node.protocol.ledger.bootstrap import BootTag, served
from offgrid_node.protocol.ledger.delivery import VoucherTag
from offgrid_node.protocol.ledger.exposures import AMOUNT_BYTES
from offgrid_node.protocol.ledger.gossip import Tag
from offgrid_node.protocol.ledger.items import Item, SignedHeader
from offgrid_node.protocol.ledger.parcels import made_us, parcels
from offgrid_node.protocol.ledger.parts import Parts
from offgrid_node.protocol.ledger.records import LedgerGenesis
from offgrid_node.protocol.ledger.tables import CREDIT_LINES, GENESIS_KEY, META
from offgrid_node.protocol.ledger.taken import amounts
from offgrid_node.protocol.rng import Rng

ENTERS, ENTERS_RETRY_MS = "this node begins at a checkpoint", 1_000


class LedgerMachine(Parts):
    """Owner, witness and observer of one node; `Machine`."""

    # ---- Machine

    def load(self, rows: Rows, now: Now) -> None:
        self._draft.load(rows)
        self.reach.load(now)
        self._holding.load()
        row = rows.get(META, GENESIS_KEY)
        if row is None:
            return
        signed = common_pb2.Signed.FromString(row)
        genesis = LedgerGenesis.decode(signed.body)
        digest = genesis.digest(self._settings.salt)
        self._accounts.load(digest)
        self._chains.load(digest)
        self._pruning.load()
        self._orphans.load(now.mono_ms)
        self._witness.load()
        self._begin_epoch(genesis, now)
        self._bootstrap.load(now)
        self._ahead.load(self._witness, now)
        self._wallet.load()
        self._begin_ledger(signed, genesis, digest, now)

    def deadline_ms(self) -> int | None:
        if not self._settings.enabled or not self._genesis_digest:
            return None
        parts = self._gossip, self._voice, self._witness, self._turning, self._holding, self._ahead, self._pruning
        due = [part.deadline_ms() for part in (*parts, self._bootstrap)]
        return min((at for at in due if at is not None), default=None)

    def step(self, inputs: Sequence[object], now: Now, rng: Rng) -> list[Effect]:
        if self._bootstrap.entered and now != self._now:
            self._load_anew(now)
        self._begin_step(now)
        enters = self._bootstrap.enters(now)
        if inputs and not enters and all(self._gossip.merely_ended(event, now) for event in inputs):
            return []
        if not enters and self._settings.enabled and self.is_open:
            self._holding.look_back()
        for event in inputs:
            match event:
                case Asked(ticket) if enters:
                    self._draft.reply(ticket, Unavailable(ENTERS, reason="Bootstrapping", retry_ms=ENTERS_RETRY_MS))
                case Asked(ticket, _, command):
                    try:
                        self._draft.reply(ticket, self._ask(command, now, rng))
                    except Fault as fault:
                        self._draft.reply(ticket, fault)
                case Answered(Tag() as tag):
                    self._gossip.on_answered(tag, event, now)
                    if isinstance(event.reply, ledger_pb2.SyncBlocksResponse):
                        self._bootstrap.on_met(tag.node, event.reply.oldest, now)
                case Answered(BootTag() as asked):
                    self._bootstrap.on_answered(asked, event, now)
                case Answered(VoucherTag() as told):
                    self._holding.on_answered(told, event, now)
                case PeerUp(node):
                    self.reach.on_peer_up(node)
                    self._gossip.on_peer_up(node)
                    self._holding.on_peer_up(node, now)
                case PeerDown(node):
                    self.reach.on_peer_down(node, now)
                    self._gossip.on_peer_down(node)
                    self._bootstrap.on_down(node)
                    self._holding.on_peer_down(node)
                case AdminChanged(node, admin):
                    self._turning.orders.on_admin(node, admin)
                case AdminsKnown(nodes):
                    self._turning.orders.on_admins(nodes)
                case commands.HeadsHeard(node, heard):
                    if self._settings.enabled and self.is_open and not enters:
                        self._gossip.on_heads_heard(node, heard, now)
                case KeyReplaced(node, number):
                    self._witness.on_key(node, number)
                case CostIncurred():
                    if self._settings.enabled:
                        self._holding.on_cost(event, now, payable=self.is_open, may_promise=not enters)
                case Woke():
                    pass  # whatever the time has brought is seen to below
                case _:
                    raise Internal(f"the ledger machine does not know {type(event).__name__}")
        if enters:
            self._begin_at_checkpoint(now)
        elif self._settings.enabled and self.is_open:
            self._close_step(now, rng)
        return self._draft.take()

    # ---- questions

    @property
    def is_open(self) -> bool:
        return bool(self._genesis_digest)

    @property
    def heads_summary(self) -> bytes:
        """The same at who has the same blocks; empty where there is no ledger, or the economy is off."""
        if not self._settings.enabled or not self.is_open:
            return b""
        return self._chains.heads.summary(self._genesis_digest)

    def beacon(self) -> Beacon:
        """What says its heads to all, as they are then."""
        return Beacon(self._chains.heads, self._genesis_digest)

    def listener(self) -> Listener:
        """What finds out where its heads differ from one other's that says them to all."""
        return Listener(self._chains.heads, self._genesis_digest)

    @property
    def prunes(self) -> bool:
        """Whether it is still at work on what lies behind the last checkpoint."""
        return self._pruning.busy

    @property
    def notices(self) -> list[str]:
        """What an operator should know about the ledger, one sentence each."""
        return [*self._voice.notices, *self._wallet.why_owed, *self._witness.room.why_not]

    @property
    def muted_why(self) -> str:
        """Why this node signs nothing, for good or until it has learnt what it signed; empty when it does."""
        return self._voice.muted_why or self._voice.learning.why

    @property
    def waits(self) -> list[str]:
        """What the end of the epoch waits for, where it is under way, one sentence each."""
        return self._turning.why_not

    @property
    def mute_notices(self) -> tuple[str, ...]:
        return (f"this node signs nothing in the ledger: {self.muted_why}",) if self.muted_why else ()

    def witness_state(self, node: str) -> ledger_pb2.WitnessState.ValueType:
        """What this node knows of a witness: as far as it is up, and has been, since this machine was loaded."""
        account = node_id_bytes(node)
        off = not self._settings.enabled if account == self._settings.account else self._gossip.is_silent(node)
        if off:
            return ledger_pb2.WITNESS_STATE_ECONOMY_OFF
        heard = self._voice.heard(account) or self._chains.author(account).place > 0
        return ledger_pb2.WITNESS_STATE_HEARD if heard else ledger_pb2.WITNESS_STATE_UNHEARD

    @property
    def owed_micro(self) -> int:
        """Booked, and no hold covers it yet."""
        return self._holding.bookings.owed.micro

    @property
    def promised_out_micro(self) -> int:
        """Promised out of holds of this node's that have not ended."""
        return self._holding.given.promised_micro

    @property
    def promised_in_micro(self) -> int:
        """Promised to this node by vouchers that it holds and nobody has posted yet."""
        return self._holding.taken.promised_micro

    @property
    def held_micro(self) -> int:
        """In this node's holds that have not ended, promised or not."""
        return self._holding.given.held_micro

    @property
    def queued_micro(self) -> int:
        """Of transfers that are not signed yet, fees included."""
        return self._wallet.queued_micro

    def of_use(self, headers: Sequence[SignedHeader]) -> list[bool]:
        """Of the blocks of one call, each in its place: whether its signatures are worth checking."""
        return self._intake.of_use(headers)

    def awaits_checkpoints(self, node: str) -> bool:
        """Whether this peer was asked for some."""
        return self.is_open and self._bootstrap.awaits(node)

    # ---- inputs

    def _ask(self, command: object, now: Now, rng: Rng) -> Message:
        if not self._settings.enabled:
            raise FailedPrecondition("economy.enabled is false at this node", reason="EconomyOff")
        match command:
            case commands.OpenLedger(genesis, body):
                self._open(genesis, body, now)
                return ledger_pb2.OpenLedgerResponse()
            case commands.SyncBlocks():
                self._meet(command, now)
                response = self._gossip.on_sync(command, now)
                response.oldest, response.epoch = self._pruning.oldest, self._epochs.number
                return response
        if not self.is_open:
            raise FailedPrecondition(
                "the mesh's ledger is not open here; an admin opens it: offgrid ledger open", reason="LedgerNotOpen"
            )
        match command:
            case commands.PushBlocks(sender, blocks):
                held = [block.place for block in blocks if self._intake.has(block.signed)]
                taken = self._intake.take(blocks, sender, now)
                self._gossip.on_push(command, held, taken, now, rng)
                return ledger_pb2.PushBlocksResponse()
            case commands.CreateTransfer():
                row = self._wallet.on_create(command, now, rng)
                return ledger_pb2.CreateTransferResponse(transaction=self._views.transfer(row))
            case commands.UnlockSlot(account):
                digest = self._wallet.on_unlock(account)
                return ledger_pb2.UnlockSlotResponse(transaction=self._views.by_digest(digest))
            case commands.SignTransaction():
                item = self._by_hand.on_sign(command, now)
                return ledger_pb2.SignTransactionResponse(
                    signed=common_pb2.Signed(body=item.body, signature=item.signature),
                    transaction=self._views.by_digest(item.digest),
                )
            case commands.SendTransaction():
                self._by_hand.on_send(command, now)
                return ledger_pb2.SendTransactionResponse(transaction=self._views.by_digest(command.item.digest))
            case commands.OrderCommittee(order):
                self._wallet.check_free()
                self._turning.order(order)
                return ledger_pb2.OrderCommitteeResponse()
            case commands.EndEpoch():
                self._wallet.check_free()
                self._turning.end()
                return ledger_pb2.EndEpochResponse()
            case commands.OpenLanes():
                self._wallet.on_open_lanes(command, now, rng)
                return ledger_pb2.OpenLanesResponse()
            case commands.Settle():
                self._wallet.check_free()
                txs = [self._views.by_digest(digest) for digest in self._holding.on_settle(command, now)]
                transactions = [tx for tx in txs if tx is not None]
                return ledger_pb2.SettleResponse(
                    transactions=transactions, amount_micro=amounts(transactions, self._settings.node_id)
                )
            case commands.AskCheckpoints(sender, first):
                request = served(self._draft, self._epochs, self._settings.salt, self._pruning.oldest, first)
                self._gossip.call(sender, "PushCheckpoints", request)
                return ledger_pb2.AskCheckpointsResponse()
            case commands.PushCheckpoints():
                self._bootstrap.on_checkpoints(command, now)
                return ledger_pb2.PushCheckpointsResponse()
            case commands.DeliverVouchers():
                return self._holding.on_vouchers(command, now)
            case commands.SetCreditLine(payer, amount_micro):
                self._set_credit_line(payer, amount_micro)
                return ledger_pb2.SetCreditLineResponse()
        raise Internal(f"the ledger machine does not know {type(command).__name__}")

    def _set_credit_line(self, payer: bytes, amount_micro: int) -> None:
        if amount_micro:
            self._draft.put_bytes(CREDIT_LINES, payer, amount_micro.to_bytes(AMOUNT_BYTES, "big"))
        else:
            self._draft.delete(CREDIT_LINES, payer)

    def _open(self, signed: common_pb2.Signed, genesis: LedgerGenesis, now: Now) -> None:
        digest = genesis.digest(self._settings.salt)
        if self.is_open and digest == self._genesis_digest:
            return
        if self.is_open:
            raise AlreadyExists("the mesh's ledger is open already; there is one for ever", reason="LedgerOpen")
        self._draft.put(META, GENESIS_KEY, signed)
        self._accounts.open(genesis, digest)
        self._chains.load(digest)
        self._begin_epoch(genesis, now)
        self._begin_ledger(signed, genesis, digest, now)

    def _meet(self, command: commands.SyncBlocks, now: Now) -> None:
        """A peer's genesis is taken when there is none; there cannot be two."""
        if not self.is_open:
            if command.genesis is None:
                raise FailedPrecondition("the mesh's ledger is not open here", reason="LedgerNotOpen")
            self._open(*command.genesis, now)
        elif command.genesis_digest not in (b"", self._genesis_digest):
            mine, theirs = self._genesis_digest.hex()[:16], command.genesis_digest.hex()[:16]
            sentence = f"{command.sender} has another ledger: genesis {theirs}, here it is {mine}"
            self._voice.notice(sentence, about=command.sender)
            raise FailedPrecondition(f"genesis {theirs} is not this node's, {mine}", reason="OtherLedger")

    def _begin_epoch(self, genesis: LedgerGenesis, now: Now) -> None:
        self._epochs.load(genesis, now)
        self._witness.open(genesis.fee_micro)
        self._turning.load()

    def _begin_ledger(self, signed: common_pb2.Signed, genesis: LedgerGenesis, digest: bytes, now: Now) -> None:
        self._genesis_digest = digest
        self._voice.load(self._epochs, self._settings.account, now.mono_ms)
        self._wallet.open(genesis.fee_micro)
        self._gossip.open(signed, digest, now)

    def _begin_at_checkpoint(self, now: Now) -> None:
        """All that this node has from now on is in rows with this batch."""
        if not self._bootstrap.entered and self._bootstrap.ready is not None:
            begin_at(
                self._bootstrap.ready, self._draft, self._chains, self._accounts, self._slots, self._transactions,
                self._witness, now,
            )  # fmt: skip
            self._bootstrap.entered = True

    def _load_anew(self, now: Now) -> None:
        rows, up = self._draft.rows, self._gossip.up
        assert rows is not None, "there is nothing to begin at before it is loaded"
        self.build()
        self.load(rows, now)
        for node in up:
            self._gossip.on_peer_up(node)
            self._holding.on_peer_up(node, now)

    # ---- a step's beginning and end

    def _begin_step(self, now: Now) -> None:
        self._draft.begin(now)
        if now != self._now:  # all steps of a batch see one instant: what came before it is committed
            self._now = now
            for part in (self._accounts, self._slots, self._witness, self._turning, self._transactions, self._chains):
                part.trim()

    def _close_step(self, now: Now, rng: Rng) -> None:
        for known in self._witness.take_learnt():
            self._wallet.on_learnt(known)
            self._holding.on_learnt(known, self._chains.authors)
        learnt_all = self._voice.on_time(now.mono_ms)
        self._gossip.on_time(now, rng)
        self._witness.on_time(now)
        self._turning.on_time(now)
        self._bootstrap.on_time(now)
        while True:
            self._witness.settle(now)
            for known in self._witness.take_ended():
                self._wallet.on_ended(known)
                self._holding.on_ended(known)
                self._gossip.on_ended(known.item.tx.src, now, rng)
            if learnt_all:
                self._wallet.on_learnt_all()
                self._holding.on_learnt_all()
                learnt_all = False
            signed = self._holding.pump(now)
            turned = self._turning.settle(now)
            if turned:
                self._marking.enter()
                self._pruning.on_entered(self._epochs.number - 1, now)
            if not self._wallet.pump(now) and not signed and not turned:
                break
        self._intake.tell_of_forks()
        for epoch, items in self._voice.take():
            for parcel in parcels(self._marking.gathered(items)):
                self._speak(epoch, parcel, now)
        self._holding.flush(now)
        self._ahead.flush(now)
        self._pruning.on_time(now)
        self._witness.flush()
        self._turning.flush()
        self._transactions.flush()
        self._accounts.flush()
        self._gossip.flush(now, rng)

    def _speak(self, epoch: int, items: Sequence[Item], now: Now) -> None:
        own, settings = self._settings.account, self._settings
        head = self._chains.author(own)
        parents = self._chains.take_parents(own)
        block = seal_block(
            own, head.height + 1, head.digest, parents, items, made_us(now), settings.signer, settings.salt, epoch=epoch
        )
        self._chains.append(block)
        if epoch == self._epochs.number:
            self._marking.on_block(block)
        self._gossip.add_own(block, now)
        event = ledger_pb2.LedgerEvent(
            src=settings.node_id, height=head.height, digest=block.digest, outcome=f"{len(items)} items"
        )
        self._draft.record(EventType.BLOCK_ADDED, f"{settings.node_id}/{head.height}", ledger=event)
