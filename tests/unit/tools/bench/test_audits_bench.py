"""The figures of audits: within what is promised, and every planted byte seen."""

from __future__ import annotations

from offgrid_node.coding.fallback import Fallback
from offgrid_node.services.objects.auditing import CALL_BYTES
from offgrid_tools.bench import audits
from offgrid_tools.bench.audits import TOGETHER_MAX, damages_caught, wire_bytes


def test_a_whole_object_is_asked_in_under_a_kilobyte_with_all_that_carries_it() -> None:
    assert wire_bytes(TOGETHER_MAX) / TOGETHER_MAX <= 1_000
    assert wire_bytes(4) / 4 <= 1_000
    assert wire_bytes(1) <= 1_000
    messages = 2 + audits.NONCE_BYTES + audits.NAME_BYTES + 2 + 2 * (1 + audits.ANSWER_BYTES)
    assert wire_bytes(1) == audits.HOSTS * (messages + CALL_BYTES), "as `offgrid audit` counts"


def test_each_wrong_byte_is_seen_and_its_shard_named() -> None:
    assert damages_caught(Fallback(), 3, seed=2) == (3, 3)
