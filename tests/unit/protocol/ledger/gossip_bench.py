"""What the other side of a ledger machine's gossip does, and what has gone out to it."""

from __future__ import annotations

from collections.abc import Iterator

from ledger_bench import SELF, Bench

from offgrid.v1 import ledger_pb2
from offgrid_node.protocol.effects import Call
from offgrid_node.protocol.ids import node_id_bytes
from offgrid_node.protocol.ledger.blocks import CheckedBlock, check_block
from offgrid_node.protocol.ledger.commands import PushBlocks
from offgrid_node.protocol.ledger.heads import Heads, Span
from offgrid_node.protocol.ledger.meeting import answer_to, question_of
from offgrid_node.protocol.ledger.words import Words, words_of
from offgrid_tools.ledgersim.keys import SALT

STEPS_MAX = 20


def take(bench: Bench, method: str) -> list[Call]:
    """Those of its calls; the others stay."""
    calls = [call for call in bench.calls if call.method.endswith(method)]
    bench.calls = [call for call in bench.calls if not call.method.endswith(method)]
    return calls


def pushes(bench: Bench, to: str = "") -> Iterator[tuple[str, ledger_pb2.PushBlocksRequest]]:
    for call in take(bench, "PushBlocks"):
        assert isinstance(call.request, ledger_pb2.PushBlocksRequest)
        if not to or call.node == to:
            yield call.node, call.request


def pushed(bench: Bench, to: str = "") -> list[tuple[str, int]]:
    """(author, height) of the blocks in all pushes so far."""
    blocks = [
        check_block(block, SALT, lambda claim: True) for _, request in pushes(bench, to) for block in request.blocks
    ]
    return [(block.header.author_id, block.header.height) for block in blocks]


def said(bench: Bench, to: str) -> list[Words]:
    """Words that went to that peer."""
    return [words_of(request) for _, request in pushes(bench, to)]


def heads(bench: Bench) -> dict[str, int]:
    return {head.author: head.height for head in bench.views.heads()}


def synced(bench: Bench, *held: tuple[str, int, bytes]) -> None:
    """Every peer that is met holds these heads, and says so; pushes so far are forgotten."""
    theirs, yours = Heads(), b""
    for author, height, digest in held:
        theirs.move(node_id_bytes(author), height, digest)
        yours = digest if author == SELF else yours
    take(bench, "PushBlocks")
    for _ in range(STEPS_MAX):
        for call in take(bench, "SyncBlocks"):
            assert isinstance(call.request, ledger_pb2.SyncBlocksRequest)
            answer = answer_to(theirs, question_of(call.request), bench.root)
            answer.yours = yours
            bench.answer(call, answer)


def says(bench: Bench, sender: str, *blocks: CheckedBlock, **words: object) -> None:
    """A PushBlocks call."""
    bench.ask(PushBlocks(sender, blocks, words=Words(**words)), sender)  # type: ignore[arg-type]


def asks(bench: Bench, sender: str, author: str, first: int, last: int) -> None:
    says(bench, sender, lacking=(Span(node_id_bytes(author), first, last),))


def accept(bench: Bench, rounds: int = 20) -> list[tuple[str, ledger_pb2.PushBlocksRequest]]:
    """Answers every push with success, until there are no more; all that were made."""
    made = []
    for _ in range(rounds):
        calls = take(bench, "PushBlocks")
        for call in calls:
            made.append((call.node, call.request))
            bench.answer(call, ledger_pb2.PushBlocksResponse())
    return made  # type: ignore[return-value]
