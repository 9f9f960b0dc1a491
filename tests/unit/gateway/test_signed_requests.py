"""The prototype's shared secret: what is signed, for how long it counts, and that it counts once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.gateway import signed_requests
from offgrid_node.gateway.signed_requests import (
    NESTING_MAX,
    WINDOW_S,
    Seen,
    SignedRequests,
    canonical,
    mac_of,
    read_numbers_as_written,
    timestamp_us,
)
from offgrid_node.protocol.errors import Exhausted, Fault, InvalidRequest, PermissionDenied
from offgrid_node.services.status import status_of

KEY, NODE = b"a secret that all share", "a" * 32
NOW_S = 1_795_408_200
NOW_US = NOW_S * 1_000_000
JOB = {"job_id": "j-1", "type": "compute", "size": 0.5, "timestamp": NOW_S}
DAY_S = 86_400

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def signed(payload: dict[str, Any], key: bytes = KEY, **form: Any) -> bytes:
    """As a client does it that has Python's own library alone."""
    text = json.dumps(payload, sort_keys=True, **(form or {"separators": (",", ":"), "ensure_ascii": False}))
    mac = hmac.new(key, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    return json.dumps(payload | {"signature": mac}).encode()


def refusal(body: bytes, now_us: int = NOW_US, by: SignedRequests | None = None) -> Fault:
    with pytest.raises(Fault) as caught:
        (by or SignedRequests(KEY, NODE)).check(body, now_us)
    return caught.value


def is_unauthenticated(fault: Fault, reason: str) -> bool:
    return isinstance(fault, PermissionDenied) and fault.reason == reason and status_of(fault).code == 16


def test_a_payload_of_the_prototype_is_taken() -> None:
    assert SignedRequests(KEY, NODE).check(signed(JOB), NOW_US).at_us == NOW_US


def test_what_is_signed_is_written_down_byte_by_byte() -> None:
    body = b'{ "b": [1.50, 1e3, -0], "a": {"z": "\\u00e4\\n", "y": true}, "\\u00f6": null }'
    text = '{"a":{"y":true,"z":"ä\\n"},"b":[1.50,1e3,-0],"ö":null}'
    assert canonical(read_numbers_as_written(body)).decode() == text


def test_as_openssl_makes_it() -> None:
    """The digits of `printf %s TEXT | openssl dgst -sha256 -hmac KEY`."""
    made = "f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8"
    assert mac_of(b"key", b"The quick brown fox jumps over the lazy dog").hex() == made


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_whatever_python_signs_and_sends_is_taken_in_each_of_its_forms(more: dict[str, Any]) -> None:
    more.pop("signature", None)
    payload = more | {"timestamp": NOW_S}
    forms: list[dict[str, Any]] = [{}, {"ensure_ascii": True}, {"ensure_ascii": False}, {"separators": (",", ":")}]
    for form in forms:
        assert SignedRequests(KEY, NODE).check(signed(payload, **form), NOW_US).at_us == NOW_US


@given(st.binary(max_size=60) | JSON.map(lambda said: json.dumps(said).encode()))
def test_any_body_ends_in_a_fault_that_says_what_is_wrong(body: bytes) -> None:
    assert isinstance(refusal(body), InvalidRequest | PermissionDenied)


@pytest.mark.parametrize("change", [{"size": 0.51}, {"job_id": "j-2"}, {"more": None}, {"timestamp": NOW_S + 1}])
def test_a_changed_payload_is_refused(change: dict[str, Any]) -> None:
    body = json.loads(signed(JOB)) | change
    assert is_unauthenticated(refusal(json.dumps(body).encode()), "SignatureInvalid")


def test_another_secret_is_refused() -> None:
    assert is_unauthenticated(refusal(signed(JOB, b"another")), "SignatureInvalid")


@pytest.mark.parametrize("said", [None, "", 7, "no", "00" * 32, "zz" * 32, ["x"]])
def test_what_is_no_signature_is_refused(said: object) -> None:
    reason = "SignatureMissing" if said in (None, "") else "SignatureInvalid"
    assert is_unauthenticated(refusal(json.dumps(JOB | {"signature": said}).encode()), reason)


def test_base64_is_a_signature_as_well_and_the_same_one() -> None:
    body = json.loads(signed(JOB))
    again = body | {"signature": base64.b64encode(bytes.fromhex(body["signature"])).decode()}
    requests = SignedRequests(KEY, NODE)
    requests.check(json.dumps(again).encode(), NOW_US)
    for copy in (body, body | {"signature": body["signature"].upper()}):
        assert is_unauthenticated(refusal(json.dumps(copy).encode(), by=requests), "SignatureReplayed")


@pytest.mark.parametrize("said", ["/auction", "", 7, {}])
def test_what_was_signed_for_another_path_is_refused_and_still_good_for_its_own(said: object) -> None:
    requests, body = SignedRequests(KEY, NODE), signed(JOB | {"signed_path": said})
    with pytest.raises(PermissionDenied, match=r"signed for .* came to '/toggle'") as caught:
        requests.check(body, NOW_US, "/toggle")
    assert is_unauthenticated(caught.value, "SignatureMisplaced")
    if said:
        requests.check(signed(JOB | {"signed_path": "/auction"}), NOW_US, "/auction")


@pytest.mark.parametrize("said", ["b" * 32, "", "aaaa", 7, []])
def test_what_was_signed_for_another_node_is_refused_there_and_without_its_name_taken_by_both(said: object) -> None:
    here, there = SignedRequests(KEY, NODE), SignedRequests(KEY, "b" * 32)
    assert is_unauthenticated(refusal(signed(JOB | {"signed_node": said}), by=here), "SignatureMisplaced")
    mine = signed(JOB | {"signed_node": NODE})
    assert is_unauthenticated(refusal(mine, by=there), "SignatureMisplaced")
    for each in (here, there):
        each.check(signed(JOB), NOW_US)
    here.check(mine, NOW_US)


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"timestamp": NOW_S - DAY_S}, "SignatureExpired"), ({"signature": "00"}, "SignatureInvalid")],
)
def test_what_is_cheap_is_looked_at_first(change: dict[str, Any], reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps(json.loads(signed(JOB)) | change).encode()
    monkeypatch.delattr(signed_requests, "forms")
    assert is_unauthenticated(refusal(body), reason)


class TestTheWindow:
    @pytest.mark.parametrize("off_s", [-WINDOW_S, -1, 0, 1, WINDOW_S])
    def test_five_minutes_both_ways_are_within_it(self, off_s: int) -> None:
        SignedRequests(KEY, NODE).check(signed(JOB | {"timestamp": NOW_S + off_s}), NOW_US)

    @pytest.mark.parametrize(("off_s", "said"), [(-301, "301 s behind"), (412, "412 s ahead of"), (-DAY_S, "86400 s")])
    def test_what_is_beyond_it_is_refused_and_told_by_how_much(self, off_s: int, said: str) -> None:
        fault = refusal(signed(JOB | {"timestamp": NOW_S + off_s}))
        assert is_unauthenticated(fault, "SignatureExpired")
        assert said in fault.message
        assert datetime.fromtimestamp(NOW_S, UTC).isoformat() in fault.message

    @pytest.mark.parametrize(
        "said",
        [
            NOW_S,
            float(NOW_S),
            str(NOW_S),
            NOW_S * 1_000,
            NOW_US,
            datetime.fromtimestamp(NOW_S, UTC).isoformat(),
            datetime.fromtimestamp(NOW_S, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            datetime.fromtimestamp(NOW_S, UTC).replace(tzinfo=None).isoformat(),
        ],
    )
    def test_a_time_may_be_said_as_programs_say_it(self, said: object) -> None:
        assert SignedRequests(KEY, NODE).check(signed(JOB | {"timestamp": said}), NOW_US).at_us == NOW_US

    @pytest.mark.parametrize("said", ["soon", True, [], {}, -1, 1e300, "nan"])
    def test_what_is_no_time_is_refused(self, said: object) -> None:
        assert is_unauthenticated(refusal(signed(JOB | {"timestamp": said})), "TimestampInvalid")

    def test_none_at_all_is_refused(self) -> None:
        assert is_unauthenticated(refusal(signed({"job_id": "j"})), "TimestampMissing")

    @given(st.floats() | st.text() | st.integers())
    def test_whatever_is_said_is_a_time_or_a_fault(self, said: object) -> None:
        with suppress(PermissionDenied):
            assert abs(timestamp_us(str(said))) < 10**18


class TestReplays:
    def test_are_refused_as_long_as_the_window_would_let_them_in(self) -> None:
        requests, body = SignedRequests(KEY, NODE), signed(JOB | {"timestamp": NOW_S + WINDOW_S})
        requests.check(body, NOW_US)
        for later_s in (0, WINDOW_S, 2 * WINDOW_S):
            fault = refusal(body, NOW_US + later_s * 1_000_000, requests)
            assert is_unauthenticated(fault, "SignatureReplayed")
        fault = refusal(body, NOW_US + (2 * WINDOW_S + 1) * 1_000_000, requests)
        assert is_unauthenticated(fault, "SignatureExpired")

    def test_are_refused_in_another_order_and_with_other_blanks(self) -> None:
        requests, body = SignedRequests(KEY, NODE), signed(JOB)
        requests.check(body, NOW_US)
        turned = json.dumps(dict(reversed(json.loads(body).items())), indent=4).encode()
        assert is_unauthenticated(refusal(turned, by=requests), "SignatureReplayed")

    def test_are_refused_after_a_restart(self) -> None:
        before = SignedRequests(KEY, NODE)
        before.check(signed(JOB), NOW_US)
        after = SignedRequests(KEY, NODE, before.seen)
        assert is_unauthenticated(refusal(signed(JOB), by=after), "SignatureReplayed")

    def test_are_refused_when_the_clock_was_ahead_for_a_while(self) -> None:
        requests, old, new = SignedRequests(KEY, NODE), signed(JOB), signed(JOB | {"timestamp": NOW_S + 1})
        requests.check(old, NOW_US)
        requests.check(signed(JOB | {"timestamp": NOW_S + DAY_S}), NOW_US + DAY_S * 1_000_000)
        assert is_unauthenticated(refusal(old, by=requests), "SignatureExpired")
        requests.check(new, NOW_US)

    def test_are_forgotten_when_the_window_is_over_and_no_more_than_that_is_kept(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(signed_requests, "SEEN_MAX", 3)
        requests = SignedRequests(KEY, NODE)
        for second in range(3):
            requests.check(signed(JOB | {"timestamp": NOW_S + second}), NOW_US)
        fault = refusal(signed(JOB | {"timestamp": NOW_S + 3}), by=requests)
        assert isinstance(fault, Exhausted)
        assert fault.retry_ms == WINDOW_S * 1_000
        requests.check(signed(JOB | {"timestamp": NOW_S + 4}), NOW_US + (WINDOW_S + 1) * 1_000_000)
        assert [seen.at_us // 1_000_000 - NOW_S for seen in requests.seen] == [1, 2, 4]

    def test_that_are_older_than_the_window_are_of_no_concern_at_a_start(self) -> None:
        requests = SignedRequests(KEY, NODE, [Seen(bytes(32), 7)])
        requests.check(signed(JOB), NOW_US)
        assert len(requests.seen) == 1


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{",
        b"\xff",
        b'{"a": NaN}',
        b'{"a": 1, "a": 2}',
        b'{"a": %s%s, "timestamp": %d, "signature": "%s"}'
        % (b"[" * (NESTING_MAX + 1), b"]" * (NESTING_MAX + 1), NOW_S, b"0" * 64),
        b"[" * 100_000,
    ],
)
def test_what_is_no_plain_json_object_is_the_callers_fault(body: bytes) -> None:
    assert isinstance(refusal(body), InvalidRequest)
