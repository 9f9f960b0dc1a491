"""Kinds of events: what each one's schema lets in, and what is said of what it does not."""

from __future__ import annotations

from typing import Any

import pytest

from offgrid.kinds import KNOWN, SCHEMA_BYTES_MAX, Kinds, RejectedEvent

GOOD: dict[str, dict[str, Any]] = {
    "energy.update": {
        "energy": 1, "accumulator": 2.5, "model_id": "m", "fps": 60, "frame_budget_used": 0.4, "diversity_index": -1,
        "token_count": 3,
    },
    "user.prompt": {
        "prompt_id": "p", "interface": "cli", "length": 7, "truncated": False, "hash": "0" * 64, "language": "de-CH",
        "intent": "ask",
    },
    "pattern.interference": {
        "models_involved": ["a", "b"], "interference_type": "beat", "strength": 0.1, "frequency": 2, "duration_ms": 5,
    },
    "health.heartbeat": {"status": "ok", "uptime_s": 1.5, "whatever": [1, {"else": None}]},
}  # fmt: skip


@pytest.fixture(scope="module")
def kinds() -> Kinds:
    return Kinds()


def test_each_known_kind_takes_all_its_fields(kinds: Kinds) -> None:
    assert set(GOOD) == set(KNOWN) == set(kinds)
    assert kinds.expendable == {"energy.update", "health.heartbeat"}
    for kind, data in GOOD.items():
        kinds.check(kind, data)
        assert set(kinds.schema(kind)["properties"]) >= set(data) - {"whatever"}


@pytest.mark.parametrize(
    ("kind", "change", "path", "rule"),
    [
        ("energy.update", {"energy": "1"}, "/energy", "number"),
        ("energy.update", {"token_count": -1}, "/token_count", "minimum"),
        ("energy.update", {"more": 1}, "", "more"),
        ("user.prompt", {"text": "what was asked"}, "", "text"),
        ("user.prompt", {"hash": "what was asked"}, "/hash", "match"),
        ("pattern.interference", {"models_involved": ["a", 7]}, "/models_involved/1", "string"),
        ("pattern.interference", {"models_involved": []}, "/models_involved", "less than 1|fewer|1 item"),
        ("health.heartbeat", {"status": "fine"}, "/status", "one of"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_path_and_rule(
    kinds: Kinds, kind: str, change: dict[str, Any], path: str, rule: str
) -> None:
    with pytest.raises(RejectedEvent, match=rule) as caught:
        kinds.check(kind, GOOD[kind] | change)
    assert (caught.value.kind, caught.value.path) == (kind, path)


def test_what_is_no_object_or_of_no_known_kind_is_refused(kinds: Kinds) -> None:
    for data in ([], None, "x", 3):
        with pytest.raises(RejectedEvent, match="an object is needed"):
            kinds.check("health.heartbeat", data)
    with pytest.raises(RejectedEvent, match=r"not known here: energy\.update, .* register it"):
        kinds.check("no.such", {})


def test_a_registered_kind_is_checked_by_its_own_schema() -> None:
    kinds = Kinds()
    kinds.register("sensor.reading", {"type": "object", "required": ["celsius"], "a/b": {}})
    kinds.check("sensor.reading", {"celsius": 20})
    with pytest.raises(RejectedEvent, match="celsius"):
        kinds.check("sensor.reading", {})
    kinds.register("sensor.reading", True)
    kinds.check("sensor.reading", {})


CHAT = {
    "type": "object",
    "properties": {"said": {"type": "string", "maxLength": 20, "x-content": True}, "by": {"type": "string"}},
    "required": ["said"],
}


def test_what_is_content_is_hashed_and_then_only_its_hash_will_do() -> None:
    kinds = Kinds()
    kinds.register("chat.turn", CHAT)
    said = {"said": "to be or not", "by": "ann"}
    kinds.check("chat.turn", said)
    with pytest.raises(RejectedEvent, match="match") as caught:
        kinds.check("chat.turn", said, hashed=True)
    assert caught.value.path == "/said"
    kinds.hash_content("chat.turn", said)
    kinds.check("chat.turn", said, hashed=True)
    assert said["by"] == "ann"
    assert said["said"].startswith("blake2b-256:")
    assert "to be" not in said["said"]
    with pytest.raises(RejectedEvent, match="longer than 20"):
        kinds.check("chat.turn", {"said": "x" * 21})


@pytest.mark.parametrize(
    ("kind", "schema", "said"),
    [
        ("a.b", {"properties": {"x": {"type": "number", "x-content": True}}}, 'must be of the type "string"'),
        ("a.b", {"properties": {"x": {"x-content": True}}}, 'must be of the type "string"'),
        ("a.b", {"properties": {"x": {"properties": {"y": {"type": "string", "x-content": True}}}}}, "own properties"),
        ("a.b", {"properties": {"x": {"type": "string", "x-content": "yes"}}}, "own properties alone, and be true"),
        ("a.b", {"properties": {"x": {"type": "number", "x-key": True}}}, "a key must be of the type"),
        ("a.b", {"properties": {"x": {"type": "array", "x-key": True}}}, "or an array of such"),
        ("a.b", {"properties": {"x": {"type": "string", "x-key": 1}}}, "own properties alone, and be true"),
        ("Sensor", {}, "no name of a kind"),
        ("a..b", {}, "no name of a kind"),
        ("a" * 65, {}, "no name of a kind"),
        ("a.b", {"type": "nonsense"}, "a.b: /type: "),
        ("a.b", {"pattern": "("}, "a.b: /pattern: "),
        ("a.b", {"$ref": "http://127.0.0.1:9/x"}, "not in this schema, and nothing else is looked at"),
        ("a.b", [], "a JSON object"),
        ("a.b", {"description": "x" * SCHEMA_BYTES_MAX}, "a JSON object of up to"),
    ],
)
def test_what_is_no_schema_is_refused(kind: str, schema: Any, said: str) -> None:
    kinds = Kinds()
    with pytest.raises(ValueError, match=said):
        kinds.register(kind, schema)
    assert set(kinds) == set(KNOWN)


def test_keys_are_what_a_schema_calls_so() -> None:
    kinds = Kinds()
    assert kinds.keys("energy.update") == ("model_id",)
    assert kinds.keys("user.prompt") == ("prompt_id",)
    assert kinds.keys("pattern.interference") == ("models_involved",)
    assert kinds.keys("health.heartbeat") == kinds.keys("not.known") == ()
    texts = {"type": "array", "items": {"type": "string"}, "x-key": True}
    kinds.register("a.b", {"properties": {"x": {"type": "string", "x-key": True}, "y": {"type": "string"}, "z": texts}})
    assert kinds.keys("a.b") == ("x", "z")


def test_no_pattern_takes_for_ever() -> None:
    kinds = Kinds()
    kinds.register("a.b", {"properties": {"x": {"pattern": "^(a+)+$"}}})
    with pytest.raises(RejectedEvent):
        kinds.check("a.b", {"x": "a" * 60_000 + "!"})


def test_a_path_is_a_json_pointer() -> None:
    kinds = Kinds()
    kinds.register("a.b", {"properties": {"a/b~c": {"type": "string"}}})
    with pytest.raises(RejectedEvent) as caught:
        kinds.check("a.b", {"a/b~c": 1})
    assert caught.value.path == "/a~1b~0c"
