"""Every command's document has a published schema; that documents keep to theirs is held wherever tests print one
(cli_run.py), and of a real mesh by e2e/test_documents_live.py."""

from __future__ import annotations

import json

import jsonschema_rs
import pytest
from cli_run import Run
from test_cli_examples import LEAVES

from offgrid.command_line import exits
from offgrid.json_form import json_of
from offgrid.v1 import jobs_pb2, ledger_pb2, objects_pb2
from offgrid_tools.cli.documents import DOCUMENTS, OTHERS, all_schemas, schema_for
from offgrid_tools.cli.schema_shapes import INTEGER, TEXT, Either, Lines, Maybe, schema_of


def test_every_command_is_there_and_nothing_else() -> None:
    commands = {" ".join(path[1:]) for path in LEAVES if path[0] == "offgrid"}
    assert {*DOCUMENTS, *OTHERS} == commands
    assert not {*DOCUMENTS} & {*OTHERS}


@pytest.mark.parametrize("command", [*DOCUMENTS, "error"])
def test_each_is_a_schema_that_stands_alone(command: str) -> None:
    jsonschema_rs.validator_for(schema_for(command))
    jsonschema_rs.validator_for(schema_for(command, strict=True))


def test_all_together_are_one_document_whose_parts_find_what_they_need() -> None:
    made = all_schemas()
    for name in DOCUMENTS:
        jsonschema_rs.validator_for({**made["commands"][name], "$defs": made["$defs"]})


@pytest.mark.parametrize("message", [jobs_pb2.Job(), ledger_pb2.Transaction(), objects_pb2.Object()])
def test_an_empty_message_is_as_its_schema_says(message: object) -> None:
    name = type(message).__name__
    validator = jsonschema_rs.validator_for(schema_of(name, title="", strict=True))
    document = json_of(message)  # type: ignore[arg-type]
    validator.validate(document)
    for field in [*document][:3]:
        assert not validator.is_valid({key: value for key, value in document.items() if key != field})
    assert not validator.is_valid({**document, "surprise": 1})
    assert jsonschema_rs.validator_for(schema_of(name, title="")).is_valid({**document, "surprise": 1})


def test_shapes_say_what_they_read_like() -> None:
    shape = {"a": TEXT, "b?": Maybe(INTEGER), "c": [Either(TEXT, INTEGER)]}
    valid = jsonschema_rs.validator_for(schema_of(shape, title="", strict=True)).is_valid
    assert valid({"a": "x", "c": []})
    assert valid({"a": "x", "b": None, "c": [1, "y"]})
    assert not valid({"a": "x"})
    assert not valid({"a": "x", "c": [None]})
    assert schema_of(Lines(TEXT), title="")["description"] == "Each line is such a document."


def test_a_command_prints_its_own_and_names_what_was_meant(og: Run) -> None:
    code, out, _ = og("schema", "job", "list")
    assert code == exits.OK
    assert json.loads(out) == schema_for("job list")
    assert og("schema")[0] == exits.OK
    code, _, err = og("schema", "job", "lst")
    assert code == exits.USAGE
    assert "did you mean 'job list'?" in err
    assert "a report of the simulator's own" in og("schema", "sim")[2]


def test_errors_are_as_their_schema_says(og: Run) -> None:
    validator = jsonschema_rs.validator_for(schema_for("error", strict=True))
    for argv in (["job", "show", "j-none"], ["job", "lst"], ["--socket", "/none", "status"]):
        validator.validate(json.loads(og("--json", *argv)[2].splitlines()[-1]))
