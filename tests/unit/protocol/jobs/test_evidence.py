"""A receipt's file: believed for what was signed, and for nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from signed_receipts import ADMIN, BY_ADMIN, BY_ROOT, GENESIS, HOST, OTHER, OUTPUT, ROOT, file_of, follow, link, record

from offgrid.v1 import common_pb2, mesh_pb2
from offgrid_node.keys import NodeKey, verify
from offgrid_node.protocol.errors import PeerFault
from offgrid_node.protocol.jobs.evidence import FILE_BYTES_MAX, Verdict, check_file
from offgrid_node.protocol.mesh.records import MEMBER_KIND, Genesis
from offgrid_node.protocol.mesh.root import Root, sign_root_change
from offgrid_node.protocol.mesh.vouching import vouched
from offgrid_node.protocol.signing import digest_of


def checked(whole: object, **wanted: Any) -> Verdict:
    return check_file(json.dumps(whole).encode(), verify, **wanted)


def fields(verdict: Verdict) -> list[str]:
    return [problem.field for problem in verdict.problems]


WHOLE = file_of()
BYTES = json.dumps(WHOLE, indent=1).encode()


# ---- what holds


@pytest.mark.parametrize("chain", [BY_ADMIN, BY_ROOT])
def test_a_receipt_of_a_member_holds(chain: list[mesh_pb2.MemberProof]) -> None:
    verdict = checked(file_of(chain), mesh=GENESIS.mesh_id, result=OUTPUT)
    assert verdict.problems == []
    assert verdict.body is not None
    assert verdict.host is not None
    assert (verdict.body.job_id, verdict.host.name, verdict.mesh_name) == ("j-2", "barn", "home")


def test_so_does_that_of_a_member_who_was_removed_since() -> None:
    verdict = checked(file_of([link(record(HOST, "barn").tombstone(""))]))
    assert verdict.valid
    assert verdict.host is not None
    assert verdict.host.removed


def test_and_of_work_that_failed() -> None:
    assert checked(file_of(exit_code=3), result=OUTPUT).valid


def test_and_of_work_that_left_files() -> None:
    left = file_of(files_digest=b"f" * 32)
    assert checked(left, result=OUTPUT).valid
    assert fields(checked(put(left, ("result", "files_digest"), ""), result=OUTPUT)) == ["result"]


def test_the_mesh_may_be_named_by_its_beginning() -> None:
    assert checked(WHOLE, mesh=GENESIS.mesh_id[:12]).valid
    for other in (GENESIS.mesh_id[:11], "a" * 12, GENESIS.mesh_id + "a"):
        assert fields(checked(WHOLE, mesh=other)) == ["mesh.id"]


# ---- where keys followed one another

NEXT_HOST, NEXT_ADMIN = (NodeKey(letter * 32, key.node_id) for letter, key in ((b"i", HOST), (b"b", ADMIN)))
NEXT_ROOT, LAST_ROOT = NodeKey(b"s" * 32), NodeKey(b"t" * 32)
HOSTS = [follow(HOST, NEXT_HOST)]
BY_BOTH = [
    link(record(HOST, "barn", issuer=ADMIN.node_id), NEXT_ADMIN, changes=HOSTS),
    link(record(ADMIN, "hub", admin=True), changes=[follow(ADMIN, NEXT_ADMIN)]),
]


def root_changes(*kept: mesh_pb2.MemberProof) -> list[mesh_pb2.RootChange]:
    """Two, the second of which stands by these records of the first root's."""
    first = sign_root_change(Root(GENESIS), ROOT, NEXT_ROOT, (), 7)
    digests = [digest_of(MEMBER_KIND, GENESIS.salt, proof.record.body) for proof in kept]
    return sign_root_change(Root(GENESIS, first), NEXT_ROOT, LAST_ROOT, digests, 8)


@pytest.mark.parametrize(("signer", "number"), [(NEXT_HOST, 1), (HOST, 0)])
def test_a_receipt_by_any_of_the_hosts_keys_holds_and_the_verdict_says_which(signer: NodeKey, number: int) -> None:
    verdict = checked(file_of(BY_BOTH, by=signer), result=OUTPUT)
    assert verdict.problems == []
    assert (verdict.key_number, verdict.keys) == (number, 2)


def test_a_key_that_the_file_does_not_lead_to_is_nobodys() -> None:
    assert fields(checked(file_of(BY_ADMIN, by=NEXT_HOST))) == ["receipt.root_signature"]
    forged = mesh_pb2.KeyChange()
    forged.CopyFrom(HOSTS[0])
    forged.change.signature = bytes(64)
    chain = [link(record(HOST, "barn"), changes=[forged])]
    assert fields(checked(file_of(chain, by=NEXT_HOST))) == ["host.records"]


def test_what_the_first_root_said_holds_while_the_one_of_now_stands_by_it() -> None:
    by_root = [link(record(HOST, "barn"), changes=[follow(HOST, NEXT_HOST, by=LAST_ROOT)])]
    assert checked(file_of(by_root, by=NEXT_HOST, root=root_changes(*by_root))).problems == []
    assert fields(checked(file_of(by_root, by=NEXT_HOST, root=root_changes()))) == ["host.records"]
    old = [link(record(HOST, "barn"), changes=[follow(HOST, NEXT_HOST, by=ROOT)])]
    assert fields(checked(file_of(old, by=NEXT_HOST, root=root_changes(*old)))) == ["host.records"]
    anew = [link(record(HOST, "barn"), LAST_ROOT)]
    assert checked(file_of(anew, root=root_changes())).valid


def test_root_changes_are_believed_for_their_signatures_alone() -> None:
    good = root_changes(*BY_ROOT)
    dropped = [good[1]]
    widened = mesh_pb2.RootChange()
    widened.CopyFrom(good[1])
    widened.kept.append(b"x" * 32)
    for wrong in (dropped, [good[0], widened], [good[1], good[0]]):
        assert fields(checked(file_of(BY_ROOT, root=wrong))) == ["mesh.root_changes"]


FOLLOWED = json.dumps(file_of(BY_BOTH, by=NEXT_HOST, root=root_changes(BY_BOTH[1])), indent=1).encode()


@given(st.integers(0, len(FOLLOWED) - 1), st.integers(0, 7))
def test_any_flipped_bit_of_such_a_file_is_refused_too(place: int, bit: int) -> None:
    assert check_file(FOLLOWED, verify, result=OUTPUT).valid
    damaged = bytearray(FOLLOWED)
    damaged[place] ^= 1 << bit
    assert not check_file(bytes(damaged), verify, result=OUTPUT).valid


# ---- any change is seen


@given(st.integers(0, len(BYTES) - 1), st.integers(0, 7))
def test_any_flipped_bit_of_the_file_is_refused(place: int, bit: int) -> None:
    damaged = bytearray(BYTES)
    damaged[place] ^= 1 << bit
    assert not check_file(bytes(damaged), verify, result=OUTPUT).valid


@given(st.binary(max_size=200))
def test_no_bytes_make_it_stumble(data: bytes) -> None:
    assert not check_file(data, verify).valid


def leaves(value: object, where: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return [leaf for key, inner in value.items() for leaf in leaves(inner, (*where, key))]
    if isinstance(value, list):
        return [leaf for key, inner in enumerate(value) for leaf in leaves(inner, (*where, key))]
    return [where]


def put(whole: dict[str, Any], where: tuple[str | int, ...], value: object) -> dict[str, Any]:
    changed = copy.deepcopy(whole)
    inner: Any = changed
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = value
    return changed


JUNK = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.text(max_size=8) | st.lists(st.none(), max_size=2)


@given(st.sampled_from(leaves(WHOLE)), JUNK)
def test_nothing_can_stand_where_something_else_stood(where: tuple[str | int, ...], junk: object) -> None:
    changed = put(WHOLE, where, junk)
    assume(json.dumps(changed) != json.dumps(WHOLE))  # 0 may stand where 0 stood
    assert not checked(changed, result=OUTPUT).valid


def test_a_changed_fact_is_named() -> None:
    for name, value in WHOLE["facts"].items():
        other = f"{value}x" if isinstance(value, str) else value + 1
        verdict = checked(put(WHOLE, ("facts", name), other))
        assert fields(verdict) == [f"facts.{name}"]
        assert repr(value) in verdict.problems[0].what


def test_all_changed_fields_are_named_at_once() -> None:
    changed = put(put(put(WHOLE, ("facts", "price_micro"), 1), ("host", "name"), "attic"), ("mesh", "id"), "x")
    assert fields(checked(changed)) == ["mesh.id", "facts.price_micro"]
    changed = put(put(WHOLE, ("facts", "price_micro"), 1), ("host", "name"), "attic")
    assert fields(checked(changed, result=b"other")) == ["facts.price_micro", "result", "host.name"]


def test_true_is_not_one() -> None:
    assert fields(checked(put(WHOLE, ("facts", "attempt"), True))) == ["facts.attempt"]
    assert fields(checked(put(WHOLE, ("offgrid_receipt",), True))) == ["offgrid_receipt"]


@pytest.mark.parametrize(
    ("spoil", "field"),
    [
        (lambda text: text.replace(b'"index"', b'"index": 2, "index"', 1), "file"),
        (lambda text: text.replace(b'"index"', b'"more": 2, "index"', 1), "receipt"),
        (lambda text: text + b" " * FILE_BYTES_MAX, "file"),
        (lambda text: b"[" * 100_000, "file"),
        (lambda text: b"[]", "file"),
        (lambda text: b"{}", "offgrid_receipt"),
        (lambda text: text.replace(WHOLE["receipt"]["body"][:8].encode(), b"00 00 00", 1), "receipt.body"),
    ],
)
def test_what_is_no_file_of_ours_is_named(spoil: Callable[[bytes], bytes], field: str) -> None:
    assert fields(check_file(spoil(BYTES), verify)) == [field]


def test_hexadecimal_digits_have_one_form() -> None:
    upper = put(WHOLE, ("receipt", "root_signature"), WHOLE["receipt"]["root_signature"].upper())
    assert fields(checked(upper)) == ["receipt.root_signature"]


def test_another_output_or_exit_code_is_named() -> None:
    assert fields(checked(WHOLE, result=b"other")) == ["result"]
    failed = file_of(exit_code=3)
    assert fields(checked(put(failed, ("result", "exit_code"), 4), result=OUTPUT)) == ["result"]
    assert fields(checked(put(failed, ("result", "exit_code"), 0))) == ["result.exit_code"]
    assert fields(checked(put(failed, ("result", "exit_code"), 2**31))) == ["result.exit_code"]


# ---- whose key it is


def test_a_receipt_signed_by_somebody_else_is_refused() -> None:
    assert fields(checked(file_of(by=OTHER))) == ["receipt.root_signature"]


def test_one_of_another_mesh_is_refused_even_where_its_members_have_the_same_keys() -> None:
    other = Genesis("away", ROOT.public_key, 6, bytes(16))
    whole, foreign = file_of(), file_of(genesis=other, chain=[link(record(HOST, "barn"), genesis=other)])
    assert checked(foreign).valid
    assert fields(checked(foreign, mesh=GENESIS.mesh_id)) == ["mesh.id"]
    assert fields(checked({**whole, "mesh": foreign["mesh"]})) == ["host.records"]
    assert fields(checked({**whole, "mesh": foreign["mesh"], "host": foreign["host"]})) == ["receipt.root_signature"]


ADMIN_LINK = BY_ADMIN[1]
BAD_CHAINS = {
    "nobody's": [],
    "another's": [link(record(OTHER, "barn"))],
    "not the root's own word": [link(record(HOST, "barn"), OTHER)],
    "an admin's without that admin": [BY_ADMIN[0]],
    "the root's with an admin too many": [BY_ROOT[0], ADMIN_LINK],
    "of three links": [*BY_ADMIN, ADMIN_LINK],
    "an admin that names an admin": [link(record(HOST, "barn", admin=True, issuer=ADMIN.node_id), ADMIN), ADMIN_LINK],
    "an admin that an admin named": [
        BY_ADMIN[0],
        link(record(ADMIN, "hub", issuer=OTHER.node_id), OTHER),
    ],
    "one who is no admin": [BY_ADMIN[0], link(record(ADMIN, "hub"))],
    "another admin": [BY_ADMIN[0], link(record(OTHER, "hub", admin=True))],
    "an admin whom the root did not sign for": [BY_ADMIN[0], link(record(ADMIN, "hub", admin=True), OTHER)],
    "an admin that gives the host another key": [
        link(record(HOST, "barn", public_key=OTHER.public_key, issuer=ADMIN.node_id), ADMIN),
        ADMIN_LINK,
    ],
    "no record": [mesh_pb2.MemberProof(record=common_pb2.Signed(body=b"junk"))],
}


@pytest.mark.parametrize("name", BAD_CHAINS)
def test_a_chain_that_the_root_did_not_make_is_refused(name: str) -> None:
    with pytest.raises(PeerFault):
        vouched(Root(GENESIS), BAD_CHAINS[name], HOST.node_id, verify)
    assert fields(checked(file_of(BAD_CHAINS[name]))) == ["host.records"]
