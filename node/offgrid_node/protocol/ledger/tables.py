"""The ledger's rows: table names and keys. Numbers in keys are 8 bytes, big-endian; "counted down" means that the
newest comes first in a scan.

Everything in memory is rebuilt from these; what is closed is nowhere else.
"""

from __future__ import annotations

from offgrid_node.protocol.ids import NODE_ID_BYTES

META = "ledger_meta"  # one row each, see below
ACCOUNTS = "ledger_accounts"  # account → accounts.Account
BEFORE = "ledger_before"  # epoch, account → accounts.Account when it began, or nothing; of those that changed since
BOOT = "ledger_boot"  # account → accounts.Account, as a checkpoint has it at which this node is about to begin
SLOTS = "ledger_slots"  # account, seq → slots.Slot; of slots that are not final yet
TALLIES = "ledger_tallies"  # account, seq, transaction's digest → slots.Tally; beyond those in the slot's own row
DISPUTES = "ledger_disputes"  # account, seq → DisputeRow; of slots that are not final yet
ASIDE = "ledger_aside"  # account, seq, digest → DisputeRow; what cannot be counted yet
TXS = "ledger_txs"  # transaction's digest → TxRow
TX_INDEX = "ledger_tx_index"  # account (20 zeros: all), step counted down → digests of transactions, the newest first
TRANSFERS = "ledger_transfers"  # transfer id → TransferRow, of this node's owner
IN_FLIGHT = "ledger_in_flight"  # account of this node's → digest of what is signed there and has not ended
TRANSFERS_OPEN = "ledger_transfers_open"  # number → transfer id, of those not signed yet
BOOKINGS = "ledger_bookings"  # job id → Booking
BOOKING_INDEX = "ledger_booking_index"  # number counted down → job id
OWED = "ledger_owed"  # payee, number → owed.Owed, which no hold covers yet
HOLD_BOOKINGS = "ledger_hold_bookings"  # hold, place → bookings.Promised
GIVEN = "ledger_given"  # hold → GivenHold, of this node as the payer
GIVEN_OPEN = "ledger_given_open"  # hold → nothing, of those that have not ended
TAKEN = "ledger_taken"  # hold → TakenHold, of this node as the payee
TAKEN_OPEN = "ledger_taken_open"  # hold → nothing, of those that have not ended
LOG = "ledger_log"  # position → ledger_pb2.Block, in the order in which this node took blocks in
PLACES = "ledger_places"  # block's digest → position
CHAINS = "ledger_chains"  # author, height → position; of an author who forked, the branch that came first
AUTHORS = "ledger_authors"  # author → chains.Author
FORKS = "ledger_forks"  # author → the first `Fork` of it that was seen
EVIDENCE = "ledger_evidence"  # account → the newest `Double` of it
ENDED = "ledger_ended"  # epoch counted down → pruning.Ended, how far this node had come when it was over
NAMED = "ledger_named"  # digest → the author who said so, of blocks that a `Seen` names and that are not here yet
UNTOLD = "ledger_untold"  # digest → its author, of blocks beside their chain that nothing held here leans on yet
KEY_NUMBERS = "ledger_key_numbers"  # node → how often its key was replaced
REQUESTS = "ledger_requests"  # records.request_mark → transfer id
LANES_SEEN = "ledger_lanes_seen"  # account of a lane that has signed → its owner, 2 bytes of its number
CHECKPOINTS = "ledger_checkpoints"  # epoch that ended → CheckpointRow
SEALS = "ledger_seals"  # epoch that ended, witness → checkpoint's digest, signature
ORDERS = "ledger_orders"  # digest → order's item, of those for the next epoch
CUTS = "ledger_cuts"  # checkpoint's digest → cut's item, of those that this epoch could end with
ADMINS = "ledger_admins"  # node → nothing, of the mesh's admins
CREDIT_LINES = "ledger_credit_lines"  # payer's account → the most that is accepted of it before it is final, 8 bytes

GENESIS_KEY, TOTALS_KEY, MUTE_KEY, LANES_KEY = b"genesis", b"totals", b"mute", b"lanes"
AHEAD_KEY = b"ahead"  # position of the log up to which slots are in their rows: see ahead.py
PRUNED_KEY, LISTS_KEY = b"pruned", b"lists"  # how far pruning has come: pruning.py, packing.py
BOOT_KEY = b"boot"  # BootRow: see bootstrap.py
HOLD_NUMBER_KEY = b"hold_number"  # the number of the newest hold
EPOCH_KEY = b"epoch"  # EpochRow, of the epoch that it is
LEARN_KEY = b"learn"  # there from a restore until the node has learnt what it signed before: see learning.py

EVERYBODY = bytes(NODE_ID_BYTES)  # in TX_INDEX
NUMBER_BYTES, NUMBER_MAX = 8, 2**64 - 1


def number_key(number: int) -> bytes:
    return number.to_bytes(NUMBER_BYTES, "big")


def number_of(key: bytes) -> int:
    return int.from_bytes(key[-NUMBER_BYTES:], "big")


def newest_first(number: int) -> bytes:
    return (NUMBER_MAX - number).to_bytes(NUMBER_BYTES, "big")


def number_from_newest(key: bytes) -> int:
    return NUMBER_MAX - number_of(key)


def place_key(hold: bytes, place: int) -> bytes:
    return hold + place.to_bytes(4, "big")


def slot_key(account: bytes, seq: int) -> bytes:
    return account + seq.to_bytes(NUMBER_BYTES, "big")


def chain_key(author: bytes, height: int) -> bytes:
    return author + height.to_bytes(NUMBER_BYTES, "big")
