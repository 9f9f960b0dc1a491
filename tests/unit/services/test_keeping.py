"""A blob that is being vouched for is not deleted, and one that is being deleted is not vouched for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from offgrid_node.protocol.errors import FailedPrecondition
from offgrid_node.services.bulk import Bulk
from offgrid_node.services.objects.keeping import Keeping
from offgrid_node.storage.memory_blobs import MemoryBlobs


class House:
    """One kept blob, and a disk whose work is done when the test says so."""

    def __init__(self) -> None:
        self.blobs, self.waiting = MemoryBlobs(), list[Callable[[], None]]()
        self.blobs.append("s", 0, b"bytes")
        self.blobs.finish("s", "x")
        self.rows: set[str] = set()
        self.keeping = Keeping(self.blobs, Bulk(self._later), self.rows.__contains__)

    def _later(self, work: Callable[[], Any], ended: Callable[[Any], None]) -> None:
        self.waiting.append(lambda: ended(work()))

    def disk(self) -> None:
        while self.waiting:
            self.waiting.pop(0)()

    @property
    def there(self) -> bool:
        return self.blobs.size("x") is not None


def test_what_nobody_wants_is_deleted() -> None:
    house = House()
    house.keeping.drop("x")
    house.disk()
    assert not house.there


def test_what_a_row_names_stays() -> None:
    house = House()
    house.rows.add("x")
    house.keeping.drop("x")
    house.disk()
    assert house.there


def test_what_is_vouched_for_stays_until_everybody_has_done_with_it() -> None:
    house = House()
    with house.keeping.vouch("x"):
        with house.keeping.vouch("x"):
            house.keeping.drop("x")
        house.disk()
        assert house.there
    house.disk()
    assert not house.there, "nobody has to ask for it again"


def test_what_a_row_names_once_nobody_vouches_for_it_stays() -> None:
    house = House()
    with house.keeping.vouch("x"):
        house.keeping.drop("x")
        house.rows.add("x")
    house.disk()
    assert house.there


def test_what_is_being_deleted_cannot_be_vouched_for_until_it_is_gone() -> None:
    house = House()
    house.keeping.drop("x")
    with pytest.raises(FailedPrecondition) as refused, house.keeping.vouch("x"):
        pass
    assert refused.value.reason == "ReplicaIncomplete", "whoever brings it begins again"
    house.disk()
    with house.keeping.vouch("x"):
        pass


def test_a_fault_under_the_vouch_ends_it() -> None:
    house = House()
    with pytest.raises(ZeroDivisionError), house.keeping.vouch("x"):
        raise ZeroDivisionError
    house.keeping.drop("x")
    house.disk()
    assert not house.there
