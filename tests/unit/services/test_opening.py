"""Opening the ledger: names become members, defaults are everybody's, and each wrong field is refused by its name."""

from __future__ import annotations

import pytest

from offgrid.v1 import ledger_pb2
from offgrid_node.keys import NodeKey, check_identity_certificate, identity_certificate, verify
from offgrid_node.protocol.errors import FailedPrecondition, InvalidRequest, NotFound
from offgrid_node.protocol.ledger.records import (
    AMOUNT_MAX,
    FEE_MICRO_DEFAULT,
    SUPPLY_MAX,
    WITNESSES_MAX,
    LedgerGenesis,
)
from offgrid_node.protocol.mesh.directory import Directory
from offgrid_node.protocol.mesh.founding import found_mesh, issue_member
from offgrid_node.protocol.mesh.records import ROLES_ALL, MemberRecord
from offgrid_node.services.ledger.opening import BALANCE_MICRO_DEFAULT, check_admin, genesis_of
from offgrid_node.storage.memory import MemoryStore
from offgrid_node.storage.store import Batch

ROOT, ATTIC, BARN, MILL = (NodeKey(letter * 32) for letter in (b"r", b"a", b"b", b"m"))
Witness, Balance = ledger_pb2.Witness, ledger_pb2.Balance


def mesh(*others: tuple[NodeKey, str, int]) -> Directory:
    """`attic` has founded it; the others are its members with these names and weights."""
    store = MemoryStore()
    rows = found_mesh(
        "home", ROOT, ATTIC, identity_certificate(ATTIC), "attic", 5, bytes(16),
        verify=verify, check_certificate=check_identity_certificate,
    )  # fmt: skip
    store.commit(Batch(writes=rows))
    directory = Directory.load(store, verify, check_identity_certificate)
    for key, name, weight in others:
        record = MemberRecord(key.node_id, name, key.public_key, ROLES_ALL, weight, "", 1)
        directory.accept_member(issue_member(directory.genesis, record, identity_certificate(key), ROOT))
    return directory


HOME = mesh((BARN, "barn", 2_500), (MILL, "mill", 1_000))


def asked(witnesses: list[Witness] | None = None, balances: list[Balance] | None = None) -> LedgerGenesis:
    request = ledger_pb2.OpenLedgerRequest(witnesses=witnesses or [], balances=balances or [])
    return genesis_of(request, HOME, ATTIC.node_id, 77)


def test_by_default_all_members_witness_by_their_weight_and_begin_with_the_same() -> None:
    genesis = asked()
    everybody = sorted([ATTIC.node_id, BARN.node_id, MILL.node_id])
    weights = {ATTIC.node_id: 1_000, BARN.node_id: 2_500, MILL.node_id: 1_000}
    assert genesis.witnesses == tuple((node, weights[node]) for node in everybody)
    assert genesis.balances == tuple((node, BALANCE_MICRO_DEFAULT) for node in everybody)
    assert (genesis.issuer, genesis.created_us, genesis.epoch) == (ATTIC.node_id, 77, 0)
    assert LedgerGenesis.decode(genesis.encode()) == genesis


def test_names_ids_and_beginnings_of_ids_are_members() -> None:
    genesis = asked(
        [Witness(name="barn"), Witness(node_id=ATTIC.node_id, weight_milli=7)],
        [Balance(account=MILL.node_id[:6], final_micro=5), Balance(name="barn")],
    )
    assert genesis.witnesses == ((BARN.node_id, 2_500), (ATTIC.node_id, 7))
    assert genesis.balances == ((MILL.node_id, 5), (BARN.node_id, 0))


def test_the_least_fee_is_the_usual_one_unless_another_is_named_and_none_is_one() -> None:
    assert asked().fee_micro == FEE_MICRO_DEFAULT
    for fee in (0, 1, AMOUNT_MAX):
        request = ledger_pb2.OpenLedgerRequest(fee_micro=fee)
        assert genesis_of(request, HOME, ATTIC.node_id, 77).fee_micro == fee
    with pytest.raises(InvalidRequest) as refused:
        genesis_of(ledger_pb2.OpenLedgerRequest(fee_micro=AMOUNT_MAX + 1), HOME, ATTIC.node_id, 77)
    assert refused.value.violations[0].field == "fee_micro"


@pytest.mark.parametrize(
    ("witnesses", "balances", "field"),
    [
        ([Witness(name="barn"), Witness(node_id=BARN.node_id)], [], "witnesses[1]"),
        ([Witness(name="barn", weight_milli=2_000_000_000)], [], "witnesses[0].weight_milli"),
        ([Witness()], [], "witnesses[0]"),
        ([], [Balance(name="barn"), Balance(name="barn")], "balances[1]"),
        ([], [Balance(name="barn", final_micro=SUPPLY_MAX), Balance(name="mill", final_micro=1)], "balances"),
        ([], [Balance(account=BARN.node_id[:3])], "balances[0]"),
    ],
)
def test_what_is_wrong_is_named(witnesses: list[Witness], balances: list[Balance], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        asked(witnesses, balances)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_strangers_have_no_accounts() -> None:
    with pytest.raises(NotFound, match="nobody"):
        asked([], [Balance(name="nobody")])


def test_members_who_weigh_nothing_do_not_witness_unless_they_are_given_a_weight() -> None:
    light = mesh((BARN, "barn", 0))
    request = ledger_pb2.OpenLedgerRequest()
    assert genesis_of(request, light, ATTIC.node_id, 1).witnesses == ((ATTIC.node_id, 1_000),)
    request = ledger_pb2.OpenLedgerRequest(witnesses=[Witness(name="barn")])
    with pytest.raises(InvalidRequest, match="weigh nothing"):
        genesis_of(request, light, ATTIC.node_id, 1)


def test_a_mesh_of_more_members_than_can_witness_has_to_name_them() -> None:
    keys = [NodeKey(bytes([n]) * 32) for n in range(WITNESSES_MAX)]
    large = mesh(*((key, f"n-{n}", 1_000) for n, key in enumerate(keys)))
    with pytest.raises(InvalidRequest, match=f"65 of them; 1 to {WITNESSES_MAX} are allowed"):
        genesis_of(ledger_pb2.OpenLedgerRequest(), large, ATTIC.node_id, 1)
    few = ledger_pb2.OpenLedgerRequest(witnesses=[Witness(name="attic")])
    assert len(genesis_of(few, large, ATTIC.node_id, 1).balances) == 65


def test_only_admins_open_it_and_others_are_told_whom_to_ask() -> None:
    check_admin(HOME, ATTIC.node_id)
    with pytest.raises(FailedPrecondition, match="ask one of: attic") as refused:
        check_admin(HOME, BARN.node_id)
    assert refused.value.reason == "NotAnAdmin"
