"""What is final is asked first: on a terminal; nowhere else without --yes."""

from __future__ import annotations

import io

import pytest
from cli_run import Run
from small_node import SmallNode

from offgrid.command_line import exits
from offgrid_node.services.ledger.opening import BALANCE_MICRO_DEFAULT
from offgrid_tools.cli.amounts import credits_of
from offgrid_tools.cli.ledger import BEGIN_WITH

FINAL = [["rm", "notes.txt"], ["mesh", "remove", "barn"], ["host", "drop", "barn"], ["ledger", "open"]]


class Keyboard(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr("sys.stdin", Keyboard(request.param))


@pytest.fixture
def node(node: SmallNode) -> SmallNode:
    node.ledger_open, node.members[0].member.admin = False, True
    return node


@pytest.mark.parametrize("argv", FINAL, ids=" ".join)
@pytest.mark.usefixtures("node")
def test_where_nobody_can_be_asked_nothing_final_is_done(og: Run, argv: list[str]) -> None:
    code, out, err = og(*argv)
    assert (code, out) == (exits.USAGE, "")
    assert "--yes does it without asking" in err
    assert err.splitlines()[-1].startswith("  → offgrid ")
    assert err.endswith(f" {' '.join(argv)} --yes\n"), "what can be typed as it stands"


@pytest.mark.usefixtures("node")
def test_what_can_be_typed_says_yes_before_names_that_begin_with_a_dash(og: Run) -> None:
    assert og("rm", "--", "-x", "my file")[2].endswith(" rm --yes -- -x 'my file'\n")


@pytest.mark.parametrize("argv", FINAL, ids=" ".join)
@pytest.mark.parametrize("typed", ["n\n", "\n", ""], indirect=True)
@pytest.mark.usefixtures("node", "typed")
def test_what_is_not_confirmed_is_not_done(og: Run, argv: list[str]) -> None:
    code, out, err = og(*argv)
    assert (code, out) == (exits.INTERRUPTED, "")
    assert "for good" in err


@pytest.mark.parametrize("typed", ["y\n"], indirect=True)
@pytest.mark.usefixtures("node", "typed")
def test_what_is_confirmed_is_done(og: Run) -> None:
    assert og("mesh", "remove", "barn")[1].startswith("removed barn")


class TestTheLedger:
    """Who votes and who begins with what is said before it is opened, once and for ever."""

    SAID = (
        "witnesses  attic (1.5), barn (1.5)\n"
        "begin      attic, barn with 1000000 each\n"
        "later      who joins later begins with 0 and is no witness: `offgrid transfer` pays it, `offgrid ledger "
        "witnesses --add` has it vote\n"
    )

    @pytest.mark.parametrize("typed", ["y\n"], indirect=True)
    @pytest.mark.usefixtures("typed")
    def test_says_how_it_would_begin(self, og: Run, node: SmallNode) -> None:
        code, _, err = og("ledger", "open")
        assert code == exits.OK
        assert err.startswith(f"{self.SAID}Open it so, for good?")
        assert len(node.calls["OpenLedger"]) == 1
        assert credits_of(BALANCE_MICRO_DEFAULT) == BEGIN_WITH

    @pytest.mark.parametrize("typed", ["n\n"], indirect=True)
    @pytest.mark.usefixtures("typed")
    def test_says_what_was_chosen(self, og: Run, node: SmallNode) -> None:
        code, _, err = og("ledger", "open", "--witness", "barn", "--witness", "attic=2", "--balance", "barn=2.5")
        assert code == exits.INTERRUPTED
        assert err.startswith("witnesses  barn (1.5), attic (2.0)\nbegin      barn with 2.5\n")
        assert not node.calls["OpenLedger"]

    @pytest.mark.parametrize("typed", ["n\n"], indirect=True)
    @pytest.mark.usefixtures("typed")
    def test_says_the_weight_of_a_member_that_is_named_by_its_id(self, og: Run, node: SmallNode) -> None:
        barn = node.members[1].member
        assert barn.name == "barn"
        assert og("ledger", "open", "--witness", barn.node_id[:8])[2].startswith(
            f"witnesses  {barn.node_id[:8]} (1.5)\n"
        )

    def test_a_script_is_told_the_same(self, og: Run, node: SmallNode) -> None:
        code, _, err = og("ledger", "open")
        assert code == exits.USAGE
        assert "opened once, for good; --yes does it without asking" in err
        assert "  witnesses: attic (1.5), barn (1.5)\n" in err
        assert not node.calls["OpenLedger"]

    @pytest.mark.parametrize("spoilt", ["open", "off", "no admin"])
    def test_nothing_is_asked_where_the_node_is_to_refuse_it(self, og: Run, node: SmallNode, spoilt: str) -> None:
        node.ledger_open, node.ledger_enabled = spoilt == "open", spoilt != "off"
        if spoilt == "no admin":
            for peer in node.members:
                peer.member.admin = False
        og("ledger", "open")
        assert len(node.calls["OpenLedger"]) == 1
