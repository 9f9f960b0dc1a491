"""A transfer in steps: made, signed by a node or with a key file, sent, waited for; and the accounts of a wallet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_run import Run
from small_node import OTHER_ID, SmallNode

from offgrid.command_line import exits
from offgrid.v1 import ledger_pb2
from offgrid.v1.ledger_pb2 import TxState
from offgrid_node.keys import NodeKey


@pytest.fixture
def file(og: Run, tmp_path: Path) -> Path:
    """An unsigned transaction."""
    made = tmp_path / "rent.json"
    assert og("tx", "create", "--dst", "barn", "--amount", "12.5", "--meta", "invoice=17", "-o", made)[0] == 0
    return made


def key_file(folder: Path, key: NodeKey) -> Path:
    NodeKey.create(folder / "keys", seed=key.seed)
    return folder / "keys" / "node.key"


class TestByHand:
    def test_each_step_has_its_command(self, og: Run, node: SmallNode, file: Path) -> None:
        _, out, _ = og("tx", "show", file)
        for line in (f"to         {OTHER_ID}: 12.5\n", "fee        0.001\n", "its number 3\n", "invoice  17\n",
                     "signed     no: offgrid tx sign\n"):  # fmt: skip
            assert line in out, out
        code, out, err = og("tx", "sign", file)
        assert (code, out, "signed, not sent" in err) == (0, "", True)
        assert "signed     yes\n" in og("tx", "show", file)[1]
        assert "state     signed\n" in og("tx", "send", file)[1]
        code, out, _ = og("tx", "finalize", file)
        assert (code, "state     final" in out) == (0, True), out
        assert len(node.transactions) == 1

    def test_it_goes_through_pipes(self, og: Run, file: Path) -> None:
        code, out, _ = og("tx", "create", "--dst", "barn", "--amount", "1")
        assert (code, json.loads(out)["offgrid_transaction"]) == (0, 1)
        code, out, _ = og("tx", "sign", file, "-o", "-")
        assert (code, len(json.loads(out)["signature"])) == (0, 128)
        assert json.loads(file.read_text())["signature"] == "", "the file itself stays as it is"

    def test_a_key_file_signs_without_any_node(self, og: Run, node: SmallNode, file: Path, tmp_path: Path) -> None:
        path, asked = key_file(tmp_path, node.key), len(node.calls)
        assert og("tx", "sign", file, "--key", path)[0] == 0
        assert len(node.calls) == asked
        assert og("tx", "send", file)[0] == 0

    def test_anothers_key_signs_nothing(self, og: Run, file: Path, tmp_path: Path) -> None:
        path = key_file(tmp_path, NodeKey(b"x" * 32))
        code, _, err = og("tx", "sign", file, "--key", path)
        assert (code, "whose key is needed" in err) == (exits.USAGE, True), err
        assert json.loads(file.read_text())["signature"] == ""

    def test_the_key_of_a_running_node_signs_nothing_behind_its_back(
        self, og: Run, node: SmallNode, file: Path
    ) -> None:
        path = key_file(node.folder, node.key)
        code, _, err = og("tx", "sign", file, "--key", path)
        assert (code, "is running and signs for this account itself" in err) == (exits.USAGE, True), err

    def test_what_is_not_signed_is_not_sent(self, og: Run, node: SmallNode, file: Path) -> None:
        code, _, err = og("tx", "send", file)
        assert (code, "offgrid tx sign" in err) == (exits.USAGE, True), err
        assert not node.calls["SendTransaction"]

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"offgrid_transaction": 2}, "offgrid_transaction must be 1"),
            ({"mesh_id": "m"}, "mesh_id: the mesh's whole id is needed"),
            ({"mesh_id": None}, "mesh_id: the mesh's whole id is needed"),
            ({"body": "zz"}, "body: bytes as hexadecimal digits are needed"),
            ({"body": ""}, "body: transaction: body ends at 0"),
            ({"body": 7}, "body: bytes as hexadecimal digits are needed"),
            ({"signature": "00"}, "signature: 1 bytes; 64, or none, are allowed"),
        ],
        ids=str,
    )
    def test_a_damaged_file_says_where(self, og: Run, file: Path, change: dict[str, object], words: str) -> None:
        file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
        for command in ("show", "sign", "send", "finalize"):
            code, _, err = og("tx", command, file)
            assert (code, words in err) == (exits.USAGE, True), err

    @pytest.mark.parametrize("content", ["", "[]", "{", "7", "x" * 70_000], ids=lambda text: text[:5] or "nothing")
    def test_what_is_no_such_file_is_refused(self, og: Run, file: Path, content: str) -> None:
        file.write_text(content)
        assert og("tx", "show", file)[0] == exits.USAGE

    def test_a_changed_amount_is_not_what_was_signed(self, og: Run, file: Path) -> None:
        og("tx", "sign", file)
        held = json.loads(file.read_text())
        held["body"] = held["body"].replace(f"{12_500_000:016x}", f"{12_500_001:016x}")
        file.write_text(json.dumps(held))
        code, _, err = og("tx", "send", file)
        assert (code, "signature" in err) == (exits.USAGE, True), err

    @pytest.mark.parametrize("command", ["show", "finalize"])
    def test_what_is_too_long_for_a_file_is_looked_for_at_the_node(
        self, og: Run, node: SmallNode, command: str
    ) -> None:
        assert og("tx", command, "a" * 5_000)[0] == exits.NOT_FOUND

    def test_what_is_not_signed_yet_has_no_number(self, og: Run, node: SmallNode) -> None:
        tx = ledger_pb2.Transaction(tx_id="t-1", src_name="attic", state=ledger_pb2.TX_STATE_QUEUED)
        node.transactions[tx.tx_id] = tx
        assert "from      attic\n" in og("tx", "show", tx.tx_id)[1]

    def test_finalize_says_when_it_takes_longer(self, og: Run, node: SmallNode) -> None:
        og("transfer", "--dst", "nobody", "--amount", "1", "--no-wait")
        (tx_id,) = node.transactions
        assert og("tx", "finalize", tx_id, "--timeout", "0.05")[0] == exits.PENDING

    def test_what_ended_while_the_node_was_away_is_neither_kept_nor_lost(self, og: Run, node: SmallNode) -> None:
        og("transfer", "--dst", "nobody", "--amount", "1", "--no-wait")
        ((tx_id, tx),) = node.transactions.items()
        tx.state = TxState.TX_STATE_UNKNOWN
        code, out, _ = og("tx", "finalize", tx_id)
        assert (code, "state     unknown" in out, "another node may know" in out) == (exits.PENDING, True, True), out

    def test_for_scripts(self, og: Run, file: Path) -> None:
        shown = og.json("tx", "show", str(file))
        assert isinstance(shown, dict)
        assert (shown["seq"], shown["fee_micro"], shown["meta"], shown["signed"]) == (
            3,
            1_000,
            {"invoice": "17"},
            False,
        )
        og("tx", "sign", file)
        assert og.json("tx", "send", str(file))["transaction"]["tx_id"] == shown["tx_id"]  # type: ignore[index]


class TestWallet:
    def test_lists_its_accounts(self, og: Run, node: SmallNode) -> None:
        lines = og("wallet", "list")[1].splitlines()
        assert [line.split() for line in lines[1:]] == [["0", "attic", "1.5", "0", "0", "0", "c0ffee00c0ffee00"]]
        node.lanes = 2
        assert og("wallet", "list")[1].splitlines()[-1] == "4.5 in 3 accounts"

    def test_opens_more_lanes_and_funds_them(self, og: Run, node: SmallNode) -> None:
        assert og("wallet", "create-lane")[0] == 0
        code, out, _ = og("wallet", "create-lane", "--count", "3", "--fund", "2.5")
        assert code == 0
        asked = node.calls["OpenLanes"]
        assert [(request.count, request.fund_micro) for request in asked] == [(1, 0), (4, 2_500_000)]
        assert "attic/4" in out
        assert len(og.json("wallet", "list")["accounts"]) == 5  # type: ignore[index]

    @pytest.mark.parametrize("argv", [("--count", "0"), ("--count", "1025"), ("--fund", "-1")], ids=" ".join)
    def test_a_wrong_command_line_opens_none(self, og: Run, node: SmallNode, argv: tuple[str, ...]) -> None:
        assert og("wallet", "create-lane", *argv)[0] == exits.USAGE
        assert not node.calls

    def test_a_balance_says_what_is_in_lanes(self, og: Run, node: SmallNode) -> None:
        assert "lanes" not in og("balance")[1]
        node.lanes = 2
        assert "lanes      3 in 2, so 999990.499 in all: offgrid wallet list\n" in og("balance")[1]
        assert "lanes" not in og("balance", "barn")[1]
        assert len(og.json("balance")["lanes"]) == 2  # type: ignore[index]

    def test_what_was_signed_and_not_sent_is_told(self, og: Run, node: SmallNode) -> None:
        og("transfer", "--dst", "nobody", "--amount", "1", "--no-wait")
        (tx,) = node.transactions.values()
        tx.unsent = True
        assert "not sent" in og("tx", "list", "--open")[1]
        assert "it is signed and has not left this node: offgrid tx send" in og("tx", "show", tx.tx_id)[1]
