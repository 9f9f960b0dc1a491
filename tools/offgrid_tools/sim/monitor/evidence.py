"""What every rule may look at: the nodes' names and disks, and each body that anybody has signed so far."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from offgrid_node.protocol.objects.small import SMALL, small_key
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.memory_blobs import MemoryBlobs

STAGED_FOR = re.compile(r"o-[a-z2-7]{32}(\.\d+)?\Z")  # which blob staged bytes are to be, whoever brings them


class Violation(Exception):
    """An invariant does not hold: the run has found a bug."""


class Evidence:
    """Grows as the run goes on; one for all rules."""

    def __init__(self, name_of: Callable[[str], str]) -> None:
        self.name_of = name_of
        self.stores: dict[str, MemoryStore] = {}
        self.blobs: dict[str, MemoryBlobs] = {}
        self.executors: dict[str, tuple[str, ...]] = {}  # of those that are hosts
        self.keys: dict[str, bytes] = {}  # every node's public key
        self.salt = b""  # the mesh's
        self.dishonest: set[str] = set()  # nobody vouches for them; what they signed is signed all the same
        self.rotten: set[str] = set()  # their disks lose what they kept
        self.bad: set[str] = set()  # hosts that are not counted on: liars, and those that lose things or are lost
        self.doubted: set[str] = set()  # those of them that lie or lose things again and again, and stay
        self.late: set[tuple[str, str]] = (
            set()
        )  # hosts, and objects that a life of their owner's that is over brought them
        self.latest_us: dict[str, Callable[[], int]] = {}  # the latest that a node's wall clock has shown
        self._signed: dict[tuple[str, str, str, int], bytes] = {}
        self._excused: set[tuple[str, str, str, int, bytes]] = set()
        self._durable: dict[tuple[str, str, str, int], set[str]] = {}  # with all details that were ever said

    def row(self, node: str, table: str, key: bytes) -> bytes | None:
        """What is durable at that node now."""
        return self.stores[node].peek(table, key)

    def kept(self, node: str, name: str, owner: str) -> bytes | None:
        """What is durable there, as a row or a file, of what `owner` wants kept under the name."""
        row = self.row(node, SMALL, small_key(name, owner))
        blobs = self.blobs[node]
        size = blobs.size(name) if row is None and blobs.is_durable(name) else None
        return blobs.read(name, 0, size) if size is not None else row

    def names(self, node: str) -> Iterator[str]:
        """Of all that is kept there, in rows and in files, or is to be: what has come in whole needs nobody else."""
        yield from self.blobs[node].names()
        staged = (STAGED_FOR.search(each.name) for each in self.blobs[node].all_staged())
        yield from (found[0] for found in staged if found is not None)
        yield from (key.decode().partition("/")[0] for key, _ in self.stores[node].copy().scan(SMALL))

    def sign(self, what: str, signer: str, subject: str, number: int, body: bytes) -> None:
        """The signer lets go of this body. Raises Violation when it let go of another one for the same thing, unless it
        is dishonest, or was when it let go of this one: whoever went on with an old copy of its disk has that when
        it knows better."""
        thing = (what, signer, subject, number)
        if signer in self.dishonest:
            self._excused.add((*thing, body))
        if (*thing, body) in self._excused:
            return
        known = self._signed.setdefault(thing, body)
        if known != body:
            raise Violation(f"{self.name_of(signer)} signed two different {what}s for {subject}/{number}")

    def durable(self, fact: str, node: str, subject: str, number: int, detail: str = "") -> None:
        """The node's journal says this; from now on it may be said to others."""
        self._durable.setdefault((fact, node, subject, number), set()).add(detail)

    def is_durable(self, fact: str, node: str, subject: str, number: int) -> bool:
        """Whether the node's journal has said this."""
        return (fact, node, subject, number) in self._durable

    def must_be_durable(self, fact: str, node: str, subject: str, number: int, detail: str = "") -> None:
        """The node lets others know this. Raises Violation unless its journal said so, with that detail if one is
        given."""
        known = self._durable.get((fact, node, subject, number))
        if known is None or (detail and detail not in known):
            raise Violation(f"{self.name_of(node)} says of {subject}/{number} that it is {fact}; its disk does not")
