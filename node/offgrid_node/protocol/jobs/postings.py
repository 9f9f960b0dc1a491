"""What hosts tell a broker of themselves: words that each say what has changed since one before, counted and bounded.

A word is taken when it says all, or follows the last one that was taken; every answer names that one, so a host that
sees another there says all again. The broker's epoch is durable before it is first said: a broker that starts anew has
another and knows no host. An offer stands for as long as its host said with its last word.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.clock import Now
from offgrid_node.protocol.effects import Rows
from offgrid_node.protocol.errors import Exhausted, Fault
from offgrid_node.protocol.events import HOST
from offgrid_node.protocol.jobs.book import Book, Standing, Use, held_keys
from offgrid_node.protocol.jobs.bounds import OFFER_LISTS_MAX, OFFERS_BYTES_MAX
from offgrid_node.protocol.jobs.orders import ClaimKey
from offgrid_node.protocol.jobs.peers import Peers
from offgrid_node.protocol.jobs.post import Post
from offgrid_node.protocol.timers import Timers

META, EPOCH_KEY = "meta", b"broker_epoch"
LEASE_GRACE_MS = 5_000  # an award needs this long at most to become a lease that its host holds
CREDIT_MAX, CREDIT_MS = 20, 100  # words of one host at once, and the time in which one more comes to it
BARE_STANDS_MS = 15_000  # a host that offers nothing just now
HOSTS_MAX = 10_000  # in one book
BOOK_BYTES_MAX = 16 * 1024 * 1024  # of all profiles and offers as they are said; in memory up to twenty times as much
HEARD_BYTES = 4 * 1024  # of a host's own that are taken though the book is full: honest ones say one or two thousand
HANDICAP_STEP = 50  # a score that has moved by less stays where it is


class Credit(msgspec.Struct):
    """A token bucket: words that a host may still say, as of `at_ms`."""

    words: float
    at_ms: int

    def take(self, now_ms: int) -> bool:
        self.words = min(CREDIT_MAX, self.words + (now_ms - self.at_ms) / CREDIT_MS)
        self.at_ms = now_ms
        if self.words < 1:
            return False
        self.words -= 1
        return True

    @property
    def retry_ms(self) -> int:
        return 0 if self.words >= 1 else max(1, round((1 - self.words) * CREDIT_MS))


class Postings:
    """Keeps the book up to date with what hosts say and the mesh knows of them."""

    def __init__(
        self,
        book: Book,
        peers: Peers,
        post: Post,
        handicap: Callable[[str, Now], int],
        awarded_to: Callable[[str], dict[ClaimKey, Use]],
    ) -> None:
        """`awarded_to` are the leases that this broker remembers of a host that is new to its book."""
        self._book, self._peers, self._post = book, peers, post
        self._handicap, self._awarded_to = handicap, awarded_to
        self._credits: dict[str, Credit] = {}
        self._stands: Timers[str] = Timers()
        self._said_bytes = 0  # of all hosts in the book
        self._epoch = 1
        self._epoch_kept = False

    def load(self, rows: Rows) -> None:
        self._epoch = int.from_bytes(rows.get(META, EPOCH_KEY) or b"\0", "big") + 1

    @property
    def epoch(self) -> int:
        """Durable with the step in which it is first asked for."""
        if not self._epoch_kept:
            self._epoch_kept = True
            self._post.put_bytes(META, EPOCH_KEY, self._epoch.to_bytes(8, "big"))
        return self._epoch

    def deadline_ms(self) -> int | None:
        return self._stands.next_ms()

    # ---- inputs

    def on_offers(self, request: jobs_pb2.PostOffersRequest, now: Now) -> jobs_pb2.PostOffersResponse | Fault:
        """The answer; a host that says more than it may is refused."""
        host = request.host
        credit = self._credits.get(host)
        if credit is None:
            credit = self._credits[host] = Credit(CREDIT_MAX, now.mono_ms)
        if not credit.take(now.mono_ms):
            text = f"{host} tells more than {CREDIT_MAX} words at once, or one each {CREDIT_MS} ms"
            return Exhausted(text, reason="OfferFlood", retry_ms=credit.retry_ms)
        standing = self._book.get(host)
        if standing is None:
            if len(self._book) >= HOSTS_MAX:
                return Exhausted(f"the book holds {HOSTS_MAX} hosts already", reason="BookFull", retry_ms=60_000)
            standing = Standing(host)
        if request.base_seq == standing.seq or (not request.base_seq and request.seq >= standing.seq):
            if request.base_seq and (beyond := _beyond(standing, request)):
                return Exhausted(f"{host}: {beyond}", reason="OffersTooLarge", retry_ms=BARE_STANDS_MS)
            if self._is_too_much(standing, request):
                text = f"the book holds {BOOK_BYTES_MAX} bytes of offers; {host} may say {HEARD_BYTES}"
                return Exhausted(text, reason="BookFull", retry_ms=BARE_STANDS_MS)
            self._take(standing, request, now)
        return jobs_pb2.PostOffersResponse(
            broker_epoch=self.epoch, seq=standing.seq, credit=int(credit.words), retry_ms=credit.retry_ms
        )

    def on_peer_up(self, host: str) -> None:
        """A new life, or new roles: its next word counts anew, and says all."""
        standing = self._book.get(host)
        if standing is not None:
            standing.seq = 0
            self._tell(standing)

    def on_peer_down(self, host: str) -> None:
        self._credits.pop(host, None)
        self.drop(host)

    def begin(self, now: Now) -> None:
        """Offers that ran out while the process stood still are none, whatever comes first when it goes on."""
        for host in self._stands.take_due(now.mono_ms):
            self.drop(host)  # it has not said a word for as long as its offers stand

    def drop(self, host: str) -> None:
        self._stands.cancel(host)
        if (standing := self._book.get(host)) is not None:
            self._said_bytes -= standing.said_bytes
            self._book.remove(host)

    def judge(self, host: str, now: Now) -> None:
        """The broker thinks otherwise of it now."""
        standing = self._book.get(host)
        if standing is not None and self._is_moved(standing, now):
            standing.rebid()
            self._book.has_changed(host)

    # ---- inside

    def _take(self, standing: Standing, request: jobs_pb2.PostOffersRequest, now: Now) -> None:
        host = standing.host
        if self._book.get(host) is None:
            standing.used = self._awarded_to(host)
            self._book.add(standing)
        whole, changed = not request.base_seq, self._is_moved(standing, now)
        if whole:
            standing.offers, standing.held = {}, set()
        if request.HasField("profile") or whole:
            standing.profile = request.profile
            changed = True
        for offer in request.offers:
            standing.offers[offer.offer_id] = offer
        for offer_id in request.withdrawn:
            standing.offers.pop(offer_id, None)
        if changed or request.offers or request.withdrawn:
            self._count(standing)
        changed = changed or bool(request.offers or request.withdrawn) or standing.paused != request.paused
        standing.paused, standing.seq = request.paused, request.seq
        standing.held |= set(held_keys(request.held))
        standing.held -= set(held_keys(request.released))
        standing.used = _in_use(standing, now.mono_ms)
        stands_ms = min((offer.expiry_ms for offer in standing.offers.values()), default=BARE_STANDS_MS)
        self._stands.set(host, now.mono_ms + stands_ms)
        if changed:
            self._tell(standing)
        else:
            standing.recount()

    def _is_too_much(self, standing: Standing, request: jobs_pb2.PostOffersRequest) -> bool:
        """Whether the book has no room for so many words of one host."""
        if not (request.offers or request.HasField("profile")):
            return False
        said_bytes = request.ByteSize() + (standing.said_bytes if request.base_seq else 0)
        others_bytes = self._said_bytes - standing.said_bytes
        return said_bytes > HEARD_BYTES and others_bytes + said_bytes > BOOK_BYTES_MAX

    def _count(self, standing: Standing) -> None:
        said_bytes = standing.profile.ByteSize() + sum(offer.ByteSize() for offer in standing.offers.values())
        self._said_bytes += said_bytes - standing.said_bytes
        standing.said_bytes = said_bytes

    def _tell(self, standing: Standing) -> None:
        """Its bids, and what the mesh knows of it better than it does itself."""
        host = standing.host
        standing.alive = self._peers.has_role(host, HOST)
        standing.profile.name, standing.profile.failure_domain = self._peers.known_as(host)
        standing.profile.host = host
        standing.rebid()
        self._book.has_changed(host)

    def _is_moved(self, standing: Standing, now: Now) -> bool:
        handicap = self._handicap(standing.host, now)
        if abs(handicap - standing.handicap) < HANDICAP_STEP:
            return False
        standing.handicap = handicap
        return True


def _beyond(standing: Standing, request: jobs_pb2.PostOffersRequest) -> str:
    """What would be too much, were this taken on top of what stands: changes add up to no more than one word that says
    all may say. Empty if nothing is."""
    if request.held and (held := len(standing.held) + len(request.held) - len(request.released)) > OFFER_LISTS_MAX:
        return f"{held} attempts held; at most {OFFER_LISTS_MAX} are allowed"
    if request.offers and standing.offers:
        offers = {**standing.offers, **{offer.offer_id: offer for offer in request.offers}}
        size = sum(offer.ByteSize() for number, offer in offers.items() if number not in request.withdrawn)
        if size > OFFERS_BYTES_MAX:
            return f"offers of {size} bytes; at most {OFFERS_BYTES_MAX} are allowed"
    return ""


def _in_use(standing: Standing, now_ms: int) -> dict[ClaimKey, Use]:
    """What a host holds by its own word, and what was awarded to it so lately that it may not have arrived. An older
    award that it does not hold has ended, or never began."""
    held, used = standing.held, standing.used
    kept = {key: use for key, use in used.items() if key in held or use.since_ms + LEASE_GRACE_MS > now_ms}
    for key in held - kept.keys():
        kept[key] = Use(-(10**12))  # longer ago than any grace
    return kept
