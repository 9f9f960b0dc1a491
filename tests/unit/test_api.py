"""The API as its descriptors have it."""

from __future__ import annotations

from pathlib import Path

import pytest
from google.api import http_pb2

from offgrid import api
from offgrid.api import FILES, Binding, bindings, entry_of, files, is_optional, message_of
from offgrid.v1 import jobs_pb2


def test_every_file_is_there_behind_those_that_it_imports() -> None:
    assert sorted(FILES) == sorted(path.stem for path in (Path(api.__file__).parent / "v1").glob("*.proto"))
    seen: set[str] = set()
    for file in files():
        assert {each.name for each in file.dependencies if each.package == api.PACKAGE} <= seen
        seen.add(file.name)


def test_where_a_method_is_over_http() -> None:
    methods = jobs_pb2.DESCRIPTOR.services_by_name["JobService"].methods_by_name
    assert bindings(methods["GetJob"]) == (Binding("GET", "/v1/jobs/{job_id}", in_body=False),)
    assert bindings(methods["CreateJob"]) == (Binding("POST", "/v1/jobs", in_body=True),)
    members = jobs_pb2.DESCRIPTOR.services_by_name["MarketService"].methods_by_name
    assert bindings(members["SubmitJobs"]) == ()


@pytest.mark.parametrize("rule", [http_pb2.HttpRule(post="/v1/a", body="job"), http_pb2.HttpRule(custom={"kind": "X"})])
def test_a_rule_that_is_not_understood_is_refused(rule: http_pb2.HttpRule) -> None:
    with pytest.raises(ValueError, match="more than is understood"):
        api._binding(rule)


def test_what_a_field_holds() -> None:
    fields = message_of("HostProfile").fields_by_name
    entry = entry_of(fields["labels"])
    assert entry is not None
    assert (entry.key.type, entry.value.type) == (entry.key.TYPE_STRING, entry.value.TYPE_STRING)
    assert entry_of(fields["models"]) is None
    assert is_optional(message_of("PutObjectRequest").fields_by_name["code"]) is False
    assert is_optional(message_of("OpenLedgerRequest").fields_by_name["fee_micro"])
    with pytest.raises(LookupError, match="no message Nobody"):
        message_of("Nobody")
