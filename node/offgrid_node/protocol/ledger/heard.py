"""What a node holds, as the context of compact blocks (compact.py): committed rows, and blocks that it has expanded and
not taken in yet, for the next may lean on them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.blocks import CheckedBlock, header_of
from offgrid_node.protocol.ledger.chains import decode_author
from offgrid_node.protocol.ledger.compact import Named
from offgrid_node.protocol.ledger.items import SignedHeader, TxItem
from offgrid_node.protocol.ledger.records import LedgerGenesis, Tx
from offgrid_node.protocol.ledger.tables import ACCOUNTS, AUTHORS, CHAINS, LOG, PLACES, TXS, chain_key
from offgrid_node.protocol.ledger.views import Scanner

NAMED_MAX = 256  # transactions of one beginning that are looked at: of 300,000 five begin with the same two bytes


class Heard:
    """`Context`."""

    def __init__(self, rows: Scanner, genesis: LedgerGenesis, salt: bytes) -> None:
        self._rows, self._genesis, self._salt = rows, genesis, salt
        self._genesis_digest = genesis.digest(salt)
        self._blocks: dict[bytes, SignedHeader] = {}
        self._chains: dict[tuple[bytes, int], SignedHeader] = {}
        self._txs: dict[bytes, Named] = {}

    def hear(self, block: CheckedBlock) -> None:
        """One that waits to be taken in; whoever keeps many makes a new context once they are rows."""
        self._blocks[block.digest] = block.signed
        self._chains.setdefault((block.header.author, block.header.height), block.signed)
        for item in block.items:
            if isinstance(item, TxItem):
                self._txs[item.digest] = Named(item.digest, item.tx.src, item.tx.seq)

    @property
    def genesis(self) -> LedgerGenesis:
        return self._genesis

    @property
    def salt(self) -> bytes:
        return self._salt

    def height(self, author: bytes) -> int:
        row = self._rows.get(AUTHORS, author)
        height = decode_author(row).height if row is not None else 0
        while (author, height + 1) in self._chains:
            height += 1
        return height

    def placed(self, author: bytes, height: int) -> SignedHeader | None:
        return self._at(self._rows.get(CHAINS, chain_key(author, height))) or self._chains.get((author, height))

    def block(self, digest: bytes) -> SignedHeader | None:
        return self._at(self._rows.get(PLACES, digest)) or self._blocks.get(digest)

    def account(self, account: bytes) -> Account:
        row = self._rows.get(ACCOUNTS, account)
        return Account.decode(row) if row is not None else Account(0, 0, self._genesis_digest)

    def named(self, prefix: bytes) -> Iterator[Named]:
        ended = list[Named]()
        yield from (named for digest, named in self._txs.items() if digest.startswith(prefix))
        for digest, value in islice(self._rows.scan(TXS, prefix=prefix), NAMED_MAX):
            row = ledger_pb2.TxRow.FromString(value)
            tx = Tx.decode(row.signed.body)
            named = Named(digest, tx.src, tx.seq)
            if row.state == ledger_pb2.TX_STATE_SIGNED:
                yield named
            else:
                ended.append(named)
        yield from ended

    def _at(self, place: bytes | None) -> SignedHeader | None:
        raw = self._rows.get(LOG, place) if place is not None else None
        return header_of(ledger_pb2.Block.FromString(raw), self._salt) if raw is not None else None
