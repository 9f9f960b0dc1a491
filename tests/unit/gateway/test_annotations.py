"""`google.api.http`: whatever an admin may call has a path, and nothing else has one."""

from __future__ import annotations

from google.api import annotations_pb2

from offgrid_node.services.access import ACCESS
from offgrid_node.services.router import SERVICES

RULES = {
    f"{service.full_name}/{method.name}": method.GetOptions().Extensions[annotations_pb2.http]
    for service in SERVICES
    for method in service.methods
}


def test_what_admins_may_call_has_a_path_and_what_only_members_call_has_none() -> None:
    admins = {name for name, row in ACCESS.items() if "admin" in row.callers}
    assert {name for name, rule in RULES.items() if rule.WhichOneof("pattern")} == admins


def test_no_two_methods_share_a_verb_and_a_path() -> None:
    told = [(verb, getattr(rule, verb)) for rule in RULES.values() if (verb := rule.WhichOneof("pattern"))]
    assert len(told) == len(set(told))


def test_a_path_begins_with_the_version_and_what_changes_something_takes_its_fields_in_the_body() -> None:
    for name, rule in RULES.items():
        verb = rule.WhichOneof("pattern")
        if verb is not None:
            assert getattr(rule, verb).startswith("/v1/"), name
            assert rule.body == ("*" if verb in ("post", "put", "patch") else ""), name
