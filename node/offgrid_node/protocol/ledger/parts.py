"""What a ledger machine is made of. Most parts know some of the others; all write into one draft.

A machine that begins at a checkpoint is built anew and loaded (bootstrap.py), as one that was just started is.
"""

from __future__ import annotations

from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.draft import Draft
from offgrid_node.protocol.ledger.accounts import Accounts
from offgrid_node.protocol.ledger.ahead import Ahead
from offgrid_node.protocol.ledger.bootstrap import Bootstrap
from offgrid_node.protocol.ledger.by_hand import ByHand
from offgrid_node.protocol.ledger.chains import Chains
from offgrid_node.protocol.ledger.cut_slot import CutSlot
from offgrid_node.protocol.ledger.epochs import Epochs
from offgrid_node.protocol.ledger.gossip import Gossip
from offgrid_node.protocol.ledger.holding import Holding
from offgrid_node.protocol.ledger.intake import Intake
from offgrid_node.protocol.ledger.keys import Keys
from offgrid_node.protocol.ledger.marking import Marking
from offgrid_node.protocol.ledger.orphans import Orphans
from offgrid_node.protocol.ledger.pruning import Pruning
from offgrid_node.protocol.ledger.reach import Reach
from offgrid_node.protocol.ledger.settings import LedgerSettings
from offgrid_node.protocol.ledger.slots import Slots
from offgrid_node.protocol.ledger.transactions import Transactions
from offgrid_node.protocol.ledger.turning import Turning
from offgrid_node.protocol.ledger.views import Views
from offgrid_node.protocol.ledger.voice import Voice
from offgrid_node.protocol.ledger.wallet import Wallet
from offgrid_node.protocol.ledger.witness import Witness


class Parts:
    """One set at a time."""

    def __init__(self, settings: LedgerSettings) -> None:
        self._settings = settings
        self.reach = Reach(settings.node_id)
        self._now: Now | None = None
        self.build()

    def build(self) -> None:
        """All of them anew, as they are before anything is loaded."""
        settings = self._settings
        own, salt = settings.account, settings.salt
        self._draft = draft = Draft()
        self._views = Views(draft)
        self._epochs = Epochs(own, salt, draft)
        self._cut = CutSlot(salt, draft, self._epochs)
        self._voice = Voice(draft)
        self._accounts = Accounts(draft)
        self._slots = Slots(draft)
        self._keys = Keys(draft)
        self._transactions = Transactions(draft, self._accounts)
        self._chains = Chains(draft, salt)
        self._marking = Marking(self._chains, salt)
        self._ahead = Ahead(draft, self._slots, self._chains, self._marking, self._epochs, salt)
        self._pruning = Pruning(settings, draft, self._accounts, self._transactions, self._chains)
        self._orphans = Orphans(draft)
        self._witness = Witness(
            settings, draft, self._epochs, self._cut, self._accounts, self._slots, self._transactions, self._voice,
            self._keys,
        )  # fmt: skip
        self._turning = Turning(
            settings, draft, self._epochs, self._cut, self._accounts, self._slots, self._transactions, self._witness,
            self._voice, self._chains, self._keys,
        )  # fmt: skip
        self._holding = Holding(
            settings, draft, self._accounts, self._transactions, self._witness, self._voice, self._keys
        )
        self._intake = Intake(
            own, salt, draft, self._epochs, self._chains, self._marking, self._orphans, self._voice, self._witness,
            self._turning,
        )  # fmt: skip
        self._wallet = Wallet(
            settings, draft, self._accounts, self._transactions, self._witness, self._voice, self._holding, self._keys
        )
        self._by_hand = ByHand(settings, self._accounts, self._transactions, self._witness, self._wallet, self._keys)
        self._gossip = Gossip(
            settings.node_id, draft, self._epochs, self._chains, self._orphans, self._voice, settings.paces
        )
        self._bootstrap = Bootstrap(salt, draft, self._epochs, self._chains)
        self._genesis_digest = b""
