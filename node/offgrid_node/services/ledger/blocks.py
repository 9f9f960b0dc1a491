"""What peers send of the ledger, bounded and checked before it may reach the machine: blocks, a genesis.

A signature is checked against the key that the signer had by then. One bad block does not stop the good ones
beside it, or a liar's block, passed on, would cut off whoever relays it; a call of nothing but bad blocks is refused.
Gossip brings a block from several peers, so the last ones that were found good are remembered.

Signatures take time, so first comes all that is cheap: bounds, whose block it is, whether it is of any use here. What
is left is checked in a thread, one call of a peer after the other: libsodium lets go of the interpreter, so the loop
goes on meanwhile. A few are checked at once: to hand them over and back takes longer.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from offgrid.v1 import common_pb2, ledger_pb2
from offgrid_node.protocol.effects import Verifier
from offgrid_node.protocol.errors import Exhausted, InvalidRequest, PeerFault, Unavailable
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_read, header_of, signatures_of
from offgrid_node.protocol.ledger.bootstrap import checked
from offgrid_node.protocol.ledger.commands import (
    PUSH_BLOCKS_MAX,
    PUSH_BYTES_MAX,
    PUSH_SIGNATURES_MAX,
    WANTED_MAX,
    PushCheckpoints,
)
from offgrid_node.protocol.ledger.items import Claim, SignedHeader
from offgrid_node.protocol.ledger.records import DIGEST_BYTES, GENESIS_KIND, LedgerGenesis
from offgrid_node.protocol.signing import digest_of, signed_by
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.flow import Flow

REMEMBERED_BYTES_MAX = 8 * 1024 * 1024  # of blocks found good, as they were serialised
AT_ONCE_MAX = 8  # signatures; below a millisecond, and a single payment's blocks have fewer
CALLS_MAX = 4  # of one peer that are being checked; an honest one has one under way, and maybe some that it gave up
RETRY_MS = 500

OfUse = Callable[[Sequence[SignedHeader]], Sequence[bool]]
"""Of the blocks with these headers, each in its place: whether it would be looked at once its signatures hold."""


class Sifted(msgspec.Struct, frozen=True):
    """What a call has brought: blocks that are good, and author and height of those that are of no use here."""

    blocks: tuple[CheckedBlock, ...]
    useless: tuple[tuple[bytes, int], ...]


class _Read(NamedTuple):
    block: ledger_pb2.Block
    signed: SignedHeader
    raw: bytes


class Members(Protocol):
    """What is asked of the directory: whose key signs, and who may open a ledger."""

    @property
    def salt(self) -> bytes: ...

    def keys(self, node_id: str) -> Sequence[bytes]: ...

    def key_at(
        self, node_id: str, *, height: int | None = None, seq: int | None = None, number: int | None = None
    ) -> bytes | None: ...

    def is_admin(self, node_id: str) -> bool: ...


class BlockChecks:
    """Decides what of a peer's message is good; belongs to one thread, but for `_check`."""

    def __init__(self, members: Callable[[], Members], verify: Verifier, bulk: Bulk) -> None:
        self._members, self._verify, self._bulk = members, verify, bulk
        self._good: OrderedDict[bytes, CheckedBlock] = OrderedDict()
        self._good_bytes = 0
        self._calls: Counter[str] = Counter()  # that are being checked, by peer

    def blocks(self, sender: str, blocks: Sequence[ledger_pb2.Block], of_use: OfUse) -> Flow[Sifted]:
        """The good ones, in their order, and which were of no use here; those of a signer who is not known (yet) are
        left out.

        Raises InvalidRequest when there are too many, Exhausted when the sender has too many calls under way, and
        PeerFault, which names the block and what is wrong, when one is bad and nothing else came.
        """
        _check_size(blocks)
        if self._calls[sender] >= CALLS_MAX:
            raise Exhausted(
                f"{CALLS_MAX} calls of {sender} are being checked already", reason="TooManyPushes", retry_ms=RETRY_MS
            )
        self._calls[sender] += 1
        try:
            sifted, bad = yield from self._sifted(sender, blocks, of_use)
        finally:
            self._calls[sender] -= 1
            if not self._calls[sender]:
                del self._calls[sender]
        if len(bad) == len(blocks) > 0:
            raise PeerFault(f"from {sender}: {bad[0].message}", reason=bad[0].reason) from bad[0]
        return sifted

    def holds(self, claim: Claim) -> bool:
        """Whether its signer signed it, with the key of then. Raises Unavailable for a signer who is not known here."""
        return self._holds(claim, self._members())

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
        if not signed_by(members.keys(genesis.issuer), digest, message.signature, self._verify):
            raise PeerFault(f"ledger genesis: the signature is not {genesis.issuer}'s", reason="BadSignature")
        return genesis

    def checkpoints(self, sender: str, request: ledger_pb2.PushCheckpointsRequest, ledger: bytes) -> PushCheckpoints:
        """Those of a peer, with the seals that are good. Raises PeerFault."""
        members = self._members()
        return checked(
            request, ledger, sender, members.salt,
            lambda node, digest, signature: signed_by(members.keys(node), digest, signature, self._verify),
        )  # fmt: skip

    # ---- inside

    def _sifted(
        self, sender: str, blocks: Sequence[ledger_pb2.Block], of_use: OfUse
    ) -> Flow[tuple[Sifted, list[PeerFault]]]:
        """The good ones in their order, and what is wrong with the bad ones."""
        members, headers, ends = self._members(), dict[int, SignedHeader](), dict[int, CheckedBlock | PeerFault]()
        for place, block in enumerate(blocks):
            block.DiscardUnknownFields()  # nobody has signed them, and what is good is kept and passed on whole
            try:
                headers[place] = header_of(block, members.salt)
            except PeerFault as fault:
                ends[place] = fault
        uses = dict(zip(headers, of_use([*headers.values()]), strict=True))
        useful = [place for place, use in uses.items() if use]
        useless = (headers[place].header for place, use in uses.items() if not use)
        unchecked: dict[int, _Read] = {}
        for place in useful:
            raw = blocks[place].SerializeToString()
            known = self._good.get(raw)
            if known is not None:
                ends[place] = known
            elif members.keys(headers[place].header.author_id):
                unchecked[place] = _Read(blocks[place], headers[place], raw)
        few = sum(signatures_of(each.block) for each in unchecked.values()) <= AT_ONCE_MAX
        if few and self._calls[sender] == 1:
            ends |= self._check(unchecked, members)
        elif unchecked:
            size = sum(len(each.raw) for each in unchecked.values())
            checked = yield self._bulk.run(
                lambda: self._check(unchecked, members), key=f"blocks of {sender}", size_bytes=size
            )
            ends |= checked
        found = tuple(end for _, end in sorted(ends.items()) if isinstance(end, CheckedBlock))
        for good in found:
            self._remember(good)
        sifted = Sifted(found, tuple((header.author, header.height) for header in useless))
        return sifted, [end for _, end in sorted(ends.items()) if isinstance(end, PeerFault)]

    def _check(self, blocks: Mapping[int, _Read], members: Members) -> dict[int, CheckedBlock | PeerFault]:
        """In whichever thread: of the members only keys are asked for, each a single look into a dictionary."""

        ends: dict[int, CheckedBlock | PeerFault] = {}
        for place, read in blocks.items():
            self._bulk.check_going()
            try:
                ends[place] = check_read(*read, members.salt, lambda claim: self._holds(claim, members))
            except PeerFault as fault:
                ends[place] = fault
            except Unavailable:
                continue
        return ends

    def _holds(self, claim: Claim, members: Members) -> bool:
        key = members.key_at(claim.signer, height=claim.height, seq=claim.seq, number=claim.key)
        if key is None:
            raise Unavailable(f"{claim.signer} is not known here yet", reason="UnknownSigner")
        return self._verify(key, claim.digest, claim.signature)

    def _remember(self, block: CheckedBlock) -> None:
        if self._good.pop(block.raw, None) is None:
            self._good_bytes += len(block.raw)
        self._good[block.raw] = block
        while self._good_bytes > REMEMBERED_BYTES_MAX:
            oldest, _ = self._good.popitem(last=False)
            self._good_bytes -= len(oldest)


def _check_size(blocks: Sequence[ledger_pb2.Block]) -> None:
    _check_count("blocks", len(blocks), PUSH_BLOCKS_MAX)
    size = sum(block.ByteSize() for block in blocks)
    if size > PUSH_BYTES_MAX:
        raise InvalidRequest.field("blocks", f"{size} bytes together; at most {PUSH_BYTES_MAX} are allowed")
    signatures = sum(signatures_of(block) for block in blocks)
    if signatures > PUSH_SIGNATURES_MAX:
        raise InvalidRequest.field(
            "blocks", f"{signatures} signatures together; at most {PUSH_SIGNATURES_MAX} are allowed"
        )


def check_digest(field: str, digest: bytes) -> bytes:
    if len(digest) != DIGEST_BYTES:
        raise InvalidRequest.field(field, f"{len(digest)} bytes; {DIGEST_BYTES} are allowed")
    return digest


def _check_count(field: str, count: int, most: int) -> None:
    if count > most:
        raise InvalidRequest.field(field, f"{count} of them; at most {most} are allowed in one call")
