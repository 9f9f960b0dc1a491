"""`offgrid mesh invites` and `revoke`: who was let in by what, and taking back what is open."""

from __future__ import annotations

import json

from cli_run import Run
from small_node import SmallNode

from offgrid.command_line import exits


def test_the_newest_is_first_and_members_have_their_names(og: Run) -> None:
    lines = og("mesh", "invites")[1].splitlines()
    assert [line.split()[0] for line in lines] == ["INVITE", "efgh3", "abcd2"]
    assert lines[1].endswith("barn")
    assert lines[2].endswith("nobody yet")
    assert [each["invite_id"] for each in json.loads(og("--json", "mesh", "invites", "--open")[1])["invites"]] == [
        "abcd2"
    ]


def test_open_ones_are_taken_back_by_name_or_all_at_once(og: Run, node: SmallNode) -> None:
    assert og("mesh", "revoke", "abcd2", "ijkl4")[1] == "taken back abcd2\ntaken back ijkl4\n"
    assert og("mesh", "revoke", "--all", "--yes")[1] == "taken back abcd2\n"
    assert [call.invite for call in node.calls["RevokeInvite"]] == ["abcd2", "ijkl4", "abcd2"]


def test_it_says_which_and_asks_before_it_takes_all(og: Run, node: SmallNode) -> None:
    for words in ((), ("abcd2", "--all")):
        code, _, err = og("mesh", "revoke", *words)
        assert code == exits.USAGE
        assert "--all" in err
    code, _, err = og("mesh", "revoke", "--all")
    assert code == exits.USAGE
    assert "--yes" in err
    assert not node.calls["RevokeInvite"]
