"""A node's blocks as it lists them, and its ledger verified by whoever has nothing but its client."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from google.protobuf.message import Message
from ledger_house import House
from msgspec.structs import replace

from offgrid.client.ledger import Ledger
from offgrid.v1 import ledger_pb2, mesh_pb2
from offgrid_node.protocol.errors import Corrupt, FailedPrecondition, InvalidRequest
from offgrid_node.protocol.ledger.accounts import Account
from offgrid_node.protocol.ledger.checkpoints import Checkpoint
from offgrid_node.protocol.ledger.tables import ACCOUNTS, AUTHORS, CHAINS, LOG, META, NUMBER_MAX, PLACES, TXS
from offgrid_node.services.caller import ADMIN
from offgrid_node.services.mesh import MeshHandlers, NodeFacts
from offgrid_node.storage.store import Batch
from offgrid_tools.replaying import _Rows, online, verify_ledger


def listed(house: House, first: int = 0, count: int = 0) -> ledger_pb2.ListBlocksResponse:
    found: ledger_pb2.ListBlocksResponse = house.ask(
        "list_blocks", ledger_pb2.ListBlocksRequest(first=first, count=count)
    )
    return found


Liar = Callable[[SimpleNamespace], None]


def lies(change: Callable[[ledger_pb2.GetCheckpointResponse], None]) -> Liar:
    """Of the newest checkpoint behind which blocks are forgotten."""

    def tell(ledger: SimpleNamespace) -> None:
        told = ledger.checkpoint

        def checkpoint(epoch: int) -> ledger_pb2.GetCheckpointResponse:
            found: ledger_pb2.GetCheckpointResponse = told(epoch)
            if epoch == 1:
                change(found)
            return found

        ledger.checkpoint = checkpoint

    return tell


@lies
def other_heads(told: ledger_pb2.GetCheckpointResponse) -> None:
    told.heads[0].height += 1


@lies
def wrong_seals(told: ledger_pb2.GetCheckpointResponse) -> None:
    for seal in told.seals:
        seal.signature = bytes(64)


@lies
def another_checkpoint(told: ledger_pb2.GetCheckpointResponse) -> None:
    body = Checkpoint.decode(told.body)
    told.body = replace(body, previous=bytes(32)).encode()


def no_accounts(ledger: SimpleNamespace) -> None:
    ledger.epoch_accounts = lambda epoch: iter(())


@pytest.fixture
def house() -> House:
    house = House()
    house.open()
    for amount in range(1, 8):
        house.pay(amount)
    return house


class TestBlocks:
    def test_are_listed_in_the_order_in_which_they_came(self, house: House) -> None:
        everything = listed(house, 1)
        newest = everything.newest
        assert (everything.first, len(everything.blocks)) == (1, newest)
        assert newest >= 7
        page = listed(house, 3, 2)
        assert [*page.blocks] == [*everything.blocks[2:4]]
        assert (page.first, page.newest) == (3, newest)
        assert not listed(house, newest + 1).blocks

    def test_each_has_its_position_though_others_are_forgotten(self, house: House) -> None:
        newest = listed(house, 1).newest
        forgotten = [key for key, _ in house.store.scan(LOG)][:3]
        house.store.commit(Batch(writes={(LOG, key): None for key in forgotten}))
        page = listed(house, 1, 2)
        assert ([*page.positions], page.newest) == ([4, 5], newest)
        assert [*listed(house, count=newest).positions] == [*range(4, newest + 1)]

    def test_the_newest_are_had_without_counting(self, house: House) -> None:
        last = listed(house, count=2)
        assert last.first == last.newest - 1
        assert [*last.blocks] == [*listed(house, last.newest - 1).blocks]
        assert listed(house, count=1_000).first == 1

    def test_a_page_is_bounded(self, house: House, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("offgrid_node.services.ledger.reads.BLOCKS_BYTES_MAX", 1)
        assert len(listed(house, 1).blocks) == 1
        for request in ((1, 1_001), (NUMBER_MAX, 0)):
            with pytest.raises(InvalidRequest, match="allowed"):
                listed(house, *request)


class TestVerifying:
    def test_a_real_nodes_ledger_holds(self, house: House) -> None:
        report = online(client_of(house))
        assert (report.found, report.moved, report.final) == (0, False, 7)
        assert (report.mesh, report.mesh_id) == (house.directory.mesh_name, house.directory.mesh_id)
        assert report.blocks == listed(house).newest

    def test_a_node_that_says_something_else_is_found_out(self, house: House) -> None:
        report = online(client_of(house, richer=1))
        assert [finding.where for finding in report.findings] == ["supply"]

    def test_of_a_folder_every_row_is_compared(self, house: House) -> None:
        assert verify_ledger(_Rows(house.store)).found == 0
        for table in (TXS, PLACES, CHAINS, AUTHORS, ACCOUNTS):
            key, value = next(house.store.scan(table))
            house.store.commit(Batch(writes={(table, key): None}))
            assert verify_ledger(_Rows(house.store)).found > 0, table
            house.store.commit(Batch(writes={(table, key): value}))

    def test_one_whose_epoch_has_ended_holds_as_well(self, house: House) -> None:
        house.ask("end_epoch", ledger_pb2.EndEpochRequest())
        for _ in range(10):
            house.turn(500)
        house.pay(9)
        for report in (online(client_of(house)), verify_ledger(_Rows(house.store))):
            assert report.findings == []
            assert report.epochs == 1

    def test_one_that_has_forgotten_blocks_is_verified_from_its_checkpoint(self, house: House) -> None:
        for _ in range(3):
            house.ask("end_epoch", ledger_pb2.EndEpochRequest())
            for _ in range(10):
                house.turn(500)
            house.pay(9)
        for report in (verify_ledger(_Rows(house.store)), online(client_of(house))):
            assert (report.findings, report.first, report.unsealed) == ([], 2, [])
            assert report.epochs == 1
            assert 0 < report.blocks == len([*house.store.scan(LOG)])
        key, value = next(house.store.scan(ACCOUNTS))
        account = Account.decode(value)
        richer = Account(account.balance_micro + 1, account.next_seq, account.head)
        house.store.commit(Batch(writes={(ACCOUNTS, key): richer.encode()}))
        assert verify_ledger(_Rows(house.store)).found
        assert online(client_of(house)).found

    @pytest.mark.parametrize("liar", [other_heads, wrong_seals, another_checkpoint, no_accounts])
    def test_what_a_node_says_of_its_checkpoint_is_checked(self, house: House, liar: Liar) -> None:
        for _ in range(3):
            house.ask("end_epoch", ledger_pb2.EndEpochRequest())
            for _ in range(10):
                house.turn(500)
            house.pay(9)
        client = client_of(house)
        liar(client.ledger)
        assert {finding.where for finding in online(client).findings} == {"epoch 1"}

    @pytest.mark.parametrize("table", [LOG, TXS, ACCOUNTS, META])
    def test_a_row_that_cannot_be_read_is_named(self, house: House, table: str) -> None:
        key, _ = next(house.store.scan(table))
        house.store.commit(Batch(writes={(table, key): b"\xff"}))
        with pytest.raises(Corrupt, match=f"{table}, row {key.hex()}"):
            verify_ledger(_Rows(house.store))

    def test_what_was_signed_by_hand_and_not_sent_is_nothing_wrong(self, house: House) -> None:
        made = house.ask("create_transaction", ledger_pb2.CreateTransactionRequest(dst="barn", amount_micro=5))
        house.ask("sign_transaction", ledger_pb2.SignTransactionRequest(body=made.body))
        assert verify_ledger(_Rows(house.store)).findings == []

    def test_nothing_is_verified_before_it_is_open(self) -> None:
        with pytest.raises(FailedPrecondition, match="not open"):
            online(client_of(House()))

    def test_blocks_that_never_stop_coming_are_checked_and_not_compared(self, house: House) -> None:
        report = online(client_of(house, richer=1, busy=True))
        assert (report.found, report.moved) == (0, True)


def client_of(house: House, *, richer: int = 0, busy: bool = False) -> Any:
    """The parts of `offgrid.client` that verifying asks; a busy node pays whenever it is asked for balances."""
    mesh = MeshHandlers(house.runtime, house.key.node_id, NodeFacts)

    def balances() -> ledger_pb2.ListBalancesResponse:
        found: ledger_pb2.ListBalancesResponse = house.ask("list_balances", ledger_pb2.ListBalancesRequest())
        found.supply_micro += richer
        if busy:
            house.pay()
        return found

    def blocks(first: int) -> Iterator[tuple[int, ledger_pb2.Block]]:
        page = listed(house, first)
        return zip(page.positions, page.blocks, strict=True)

    def unary(method: str, request: Message, kind: object) -> Any:
        assert method == "LedgerService/ListEpochAccounts"
        return house.ask("list_epoch_accounts", request)

    def proof(node: str) -> mesh_pb2.GetMemberProofResponse:
        found = mesh.get_member_proof(ADMIN, mesh_pb2.GetMemberProofRequest(node=node))
        assert isinstance(found, mesh_pb2.GetMemberProofResponse)
        return found

    calls: Any = SimpleNamespace(unary=unary)
    return SimpleNamespace(
        ledger=SimpleNamespace(
            genesis=lambda: house.ask("get_genesis", ledger_pb2.GetGenesisRequest()),
            balances=balances,
            blocks=blocks,
            status=lambda: house.ask("get_ledger_status", ledger_pb2.GetLedgerStatusRequest()),
            epochs=lambda: house.ask("list_epochs", ledger_pb2.ListEpochsRequest()).epochs,
            checkpoint=lambda epoch: house.ask("get_checkpoint", ledger_pb2.GetCheckpointRequest(epoch=epoch)),
            epoch_accounts=Ledger(calls).epoch_accounts,
        ),
        mesh=SimpleNamespace(proof=proof, status=lambda: SimpleNamespace(node_id=house.key.node_id)),
    )
