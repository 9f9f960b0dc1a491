"""What peers send of the ledger, bounded and checked before it may reach the machine: blocks, heads, a genesis.

A signature is checked against the signer's present key in the directory. One bad block does not stop the good ones
beside it, or a liar's block, passed on, would cut off whoever relays it; a call of nothing but bad blocks is refused.
Gossip brings a block from several peers, so the last ones that were found good are remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Protocol

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import InvalidRequest, PeerFault, Unavailable
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block
from offgrid_node.protocol.ledger.commands import HEADS_MAX, PUSH_BLOCKS_MAX, PUSH_BYTES_MAX, WANTED_MAX
from offgrid_node.protocol.ledger.items import Claim
from offgrid_node.protocol.ledger.records import DIGEST_BYTES, GENESIS_KIND, SEQ_MAX, LedgerGenesis
from offgrid_node.protocol.signing import digest_of

REMEMBERED_BYTES_MAX = 8 * 1024 * 1024  # of blocks found good, as they were serialised


class Members(Protocol):
    """What is asked of the directory: whose key signs, and who may open a ledger."""

    @property
    def salt(self) -> bytes: ...

    def current_key(self, node_id: str) -> bytes | None: ...

    def is_admin(self, node_id: str) -> bool: ...


class BlockChecks:
    """Decides what of a peer's message is good; belongs to one thread."""

    def __init__(self, members: Callable[[], Members], verify: Verifier) -> None:
        self._members, self._verify = members, verify
        self._good: OrderedDict[bytes, CheckedBlock] = OrderedDict()
        self._good_bytes = 0

    def blocks(self, sender: str, blocks: Sequence[ledger_pb2.Block]) -> tuple[CheckedBlock, ...]:
        """The good ones, in their order; those of a signer who is not known (yet) are left out.

        Raises InvalidRequest when there are too many, and PeerFault, which names the block and what is wrong, when one
        is bad and none is good.
        """
        _check_count("blocks", len(blocks), PUSH_BLOCKS_MAX)
        size = sum(block.ByteSize() for block in blocks)
        if size > PUSH_BYTES_MAX:
            raise InvalidRequest.field("blocks", f"{size} bytes together; at most {PUSH_BYTES_MAX} are allowed")
        good: list[CheckedBlock] = []
        bad: PeerFault | None = None
        for block in blocks:
            try:
                good.append(self._block(block))
            except PeerFault as fault:
                bad = bad or fault
            except Unavailable:
                continue
        if bad is not None and not good:
            raise PeerFault(f"from {sender}: {bad.message}", reason=bad.reason) from bad
        return tuple(good)

    def heads(self, heads: Sequence[ledger_pb2.Head]) -> tuple[tuple[bytes, int, bytes], ...]:
        """Raises InvalidRequest for one that names no author, height or block."""
        _check_count("heads", len(heads), HEADS_MAX)
        found = []
        for index, head in enumerate(heads):
            field = f"heads[{index}]"
            if not 0 < head.height <= SEQ_MAX:
                raise InvalidRequest.field(f"{field}.height", f"{head.height}; 1 to {SEQ_MAX} are allowed")
            try:
                author = node_id_bytes(head.author)
            except ValueError as error:
                raise InvalidRequest.field(f"{field}.author", str(error)[:100]) from error
            found.append((author, head.height, check_digest(f"{field}.digest", head.digest)))
        return tuple(found)

    def wanted(self, wanted: Sequence[bytes]) -> tuple[bytes, ...]:
        """Raises InvalidRequest for what is no digest."""
        _check_count("wanted", len(wanted), WANTED_MAX)
        return tuple(check_digest(f"wanted[{index}]", digest) for index, digest in enumerate(wanted))

    def genesis(self, message: common_pb2.Signed) -> LedgerGenesis:
        """Raises PeerFault unless an admin of the mesh has signed it."""
        members, genesis = self._members(), LedgerGenesis.decode(message.body)
        if not members.is_admin(genesis.issuer):
            raise PeerFault(f"ledger genesis: {genesis.issuer} is no admin of the mesh", reason="NotAnAdmin")
        digest = digest_of(GENESIS_KIND, members.salt, message.body)
        if not self._verify(members.current_key(genesis.issuer) or b"", digest, message.signature):
            raise PeerFault(f"ledger genesis: the signature is not {genesis.issuer}'s", reason="BadSignature")
        return genesis

    # ---- inside

    def _block(self, block: ledger_pb2.Block) -> CheckedBlock:
        block.DiscardUnknownFields()  # nobody has signed them, and what is good is kept and passed on whole
        raw = block.SerializeToString()
        known = self._good.get(raw)
        if known is not None:
            self._good.move_to_end(raw)
            return known
        checked = check_block(block, self._members().salt, self._holds)
        self._good[checked.raw] = checked
        self._good_bytes += len(checked.raw)
        while self._good_bytes > REMEMBERED_BYTES_MAX:
            oldest, _ = self._good.popitem(last=False)
            self._good_bytes -= len(oldest)
        return checked

    def _holds(self, claim: Claim) -> bool:
        key = self._members().current_key(claim.signer)
        if key is None:
            raise Unavailable(f"{claim.signer} is not known here yet", reason="UnknownSigner")
        return self._verify(key, claim.digest, claim.signature)


def check_digest(field: str, digest: bytes) -> bytes:
    if len(digest) != DIGEST_BYTES:
        raise InvalidRequest.field(field, f"{len(digest)} bytes; {DIGEST_BYTES} are allowed")
    return digest


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidRequest.field(field, f"{count} of them; at most {most} are allowed in one call")
