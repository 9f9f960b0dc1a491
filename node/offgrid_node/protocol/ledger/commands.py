"""What the handlers hand to the ledger machine: bounded, decoded, and every signature checked.

By then a handler has checked:
- blocks: `blocks.check_block`, each claim against the signer's current key in the directory. A block whose signer is no
  member (yet) is left out; anti-entropy brings it again. The good blocks of a call count, whatever its bad ones;
- a genesis: signed by its `issuer`, who is an admin of the mesh by the directory;
- a transfer: asked for by this node's owner, amounts above 0, the fee 0 or given, `meta` by `records.encode_meta`.
Balances, slots and chains are the machine's business.
"""

from __future__ import annotations

import msgspec

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.ledger.beacon import Heard
from offgrid_node.protocol.ledger.blocks import CheckedBlock
from offgrid_node.protocol.ledger.checkpoints import Base, Checkpoint
from offgrid_node.protocol.ledger.items import OrderItem, TxItem
from offgrid_node.protocol.ledger.meeting import Question
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx
from offgrid_node.protocol.ledger.sources import HoldTerms
from offgrid_node.protocol.ledger.words import NO_WORDS, Words

PUSH_BLOCKS_MAX = 256  # in one PushBlocks call,
PUSH_BYTES_MAX = 1024 * 1024  # and of all its blocks together
PUSH_SIGNATURES_MAX = 1_024  # in these, for each costs the receiver time; two of the largest blocks
WANTED_MAX = 256  # digests in one SyncBlocks call
CHECKPOINTS_MAX = 64  # in one PushCheckpoints call
VOUCHERS_MAX = 64  # in one DeliverVouchers call


class HeadsHeard(msgspec.Struct, frozen=True):
    """A member has said coded symbols to all who hear it, and this node knows from them where its heads differ."""

    node: str
    heard: Heard


class OpenLedger(msgspec.Struct, frozen=True):
    """Answered with OpenLedgerResponse, its genesis empty for the handler to fill; AlreadyExists (LedgerOpen) when
    there is one."""

    genesis: common_pb2.Signed
    body: LedgerGenesis


class CreateTransfer(msgspec.Struct, frozen=True):
    """`outputs` are (account's 20 bytes, amount); `fee_micro` 0 is the ledger's least fee. A repeated `request_id` is
    answered with what it made.

    Answered with CreateTransferResponse. Its transaction is SIGNED, or QUEUED behind another of this account: then
    `tx_id` is the transfer's own id (`t-…`), by which it is found before and after it is signed. Faults:
    FailedPrecondition (EconomyOff, LedgerNotOpen, InsufficientFunds, Muted), Exhausted (TooManyTransfers),
    AlreadyExists (RequestIdReused), InvalidRequest (a fee below the least).
    """

    outputs: tuple[tuple[bytes, int], ...]
    fee_micro: int
    meta: bytes
    request_id: str
    src: bytes = b""  # an account of this node's; empty: whichever is free and has the funds


class OpenLanes(msgspec.Struct, frozen=True):
    """`count` lanes in all, at most lanes.LANES_MAX; `fund_micro` is paid into each new one out of the node's own
    account. Asked again it changes nothing.

    Answered with OpenLanesResponse, its wallet empty for the handler to fill. FailedPrecondition (EconomyOff,
    LedgerNotOpen, Muted, InsufficientFunds), Exhausted (TooManyTransfers), Unavailable (StillLearning).
    """

    count: int
    fund_micro: int


class SignTransaction(msgspec.Struct, frozen=True):
    """A transaction made by hand, to be signed for an account of this node's. Asked again it gives the same.

    Answered with SignTransactionResponse. FailedPrecondition (EconomyOff, LedgerNotOpen, Muted, NotByHand, NotNext,
    SlotTaken: another is under way or waits there, OldKey, InsufficientFunds), InvalidRequest (another's account, a fee
    below the least), Unavailable (StillLearning).
    """

    tx: Tx


class SendTransaction(msgspec.Struct, frozen=True):
    """A transaction made by hand and signed by its account's owner, as the handler has checked. `owner_is_up`: whether
    that is another node which this one is in touch with. Sent again it changes nothing.

    Answered with SendTransactionResponse. Faults as of SignTransaction, and FailedPrecondition (OwnerIsUp).
    """

    item: TxItem
    owner_is_up: bool


class UnlockSlot(msgspec.Struct, frozen=True):
    """The owner asks that the open slot of this account of its ends. Asked again it changes nothing.

    Answered with UnlockSlotResponse. FailedPrecondition (EconomyOff, LedgerNotOpen, Muted, NothingUnderWay: no
    transaction of this account is), Unavailable (StillLearning).
    """

    account: bytes = b""  # empty: the node's own


class SetCreditLine(msgspec.Struct, frozen=True):
    """How much of what `payer`, a member, has signed to this node counts as accepted before it is final; 0: nothing.

    Answered with SetCreditLineResponse, its line empty for the handler to fill. FailedPrecondition (EconomyOff,
    LedgerNotOpen).
    """

    payer: bytes
    amount_micro: int


class Settle(msgspec.Struct, frozen=True):
    """Posts what this payer (20 bytes) has promised this node, or what all have (b"").

    Answered with SettleResponse. FailedPrecondition (EconomyOff, LedgerNotOpen, Muted, NothingToSettle), Unavailable
    (StillLearning).
    """

    payer: bytes


class DeliverVouchers(msgspec.Struct, frozen=True):
    """Vouchers of a payer's, each with the terms of its hold, whose payee this node is; signed as the terms say. Of its
    holds that are `asked` for it wants to know what is held.

    Answered with DeliverVouchersResponse; FailedPrecondition (EconomyOff, LedgerNotOpen).
    """

    vouchers: tuple[tuple[HoldTerms, ledger_pb2.HoldVoucher], ...]
    payer: bytes = b""
    asked: tuple[bytes, ...] = ()


class OrderCommittee(msgspec.Struct, frozen=True):
    """Who is to witness from the next epoch on, as an admin of the mesh has signed it; the handler has checked that.
    Asked again it changes nothing.

    Answered with OrderCommitteeResponse. FailedPrecondition (EconomyOff, LedgerNotOpen, Muted, NotAnAdmin, OldKey,
    WrongEpoch, OtherLedger), Unavailable (StillLearning).
    """

    item: OrderItem


class EndEpoch(msgspec.Struct, frozen=True):
    """This node, a witness, wishes that the epoch ends. Asked again it changes nothing.

    Answered with EndEpochResponse. FailedPrecondition (EconomyOff, LedgerNotOpen, Muted, NotAWitness), Unavailable
    (StillLearning).
    """


class PushBlocks(msgspec.Struct, frozen=True):
    """What `sender` has for this node: blocks, `asked` for or not; (author, height) of others in the same call that are
    of no use here (`useless`); and words between neighbours (links.py, backfill.py).

    Answered with PushBlocksResponse; FailedPrecondition (EconomyOff, LedgerNotOpen).
    """

    sender: str
    blocks: tuple[CheckedBlock, ...] = ()
    useless: tuple[tuple[bytes, int], ...] = ()
    words: Words = NO_WORDS


class SyncBlocks(msgspec.Struct, frozen=True):
    """A step of a meeting (meeting.py). `yours` is the newest block of this node's that `sender` has: b"" for none,
    None where it does not say, and `epoch` the one in which it stands then. What it wants by digest; its genesis'
    digest, empty once it knows that this node has the same, and the genesis itself until then; whether it has chosen
    this node to link with.

    Answered with SyncBlocksResponse. FailedPrecondition (EconomyOff, LedgerNotOpen, OtherLedger).
    """

    sender: str
    question: Question
    yours: bytes | None = None
    wanted: tuple[bytes, ...] = ()
    genesis_digest: bytes = b""
    genesis: tuple[common_pb2.Signed, LedgerGenesis] | None = None
    link: bool = False
    epoch: int = 0


class AskCheckpoints(msgspec.Struct, frozen=True):
    """`sender` is behind all blocks that are kept: it is to be brought what epochs ended with, from this one on.

    Answered with AskCheckpointsResponse. FailedPrecondition (EconomyOff, LedgerNotOpen).
    """

    sender: str
    first: int


class Sealed(msgspec.Struct, frozen=True):
    """A checkpoint, and who has sealed it, with their signatures: each was checked."""

    checkpoint: Checkpoint
    seals: tuple[tuple[bytes, bytes], ...]


class PushCheckpoints(msgspec.Struct, frozen=True):
    """Checkpoints one after the other; `heads` those of the last, if it is the newest of `sender`'s.

    Answered with PushCheckpointsResponse; FailedPrecondition (EconomyOff, LedgerNotOpen).
    """

    sender: str
    checkpoints: tuple[Sealed, ...]
    heads: tuple[Base, ...]
