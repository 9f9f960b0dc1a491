"""Path templates of google.api.http, against a table and against every id that one can think of."""

from __future__ import annotations

import contextlib
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.gateway.templates import BadPath, Table, Template

FITS = [
    ("/v1/jobs", "/v1/jobs", {}),
    ("/v1/jobs", "/v1/jobs/", None),
    ("/v1/jobs", "/v1/job", None),
    ("/v1/jobs/{job_id}", "/v1/jobs/j-1", {"job_id": "j-1"}),
    ("/v1/jobs/{job_id}", "/v1/jobs/", None),
    ("/v1/jobs/{job_id}", "/v1/jobs/a/b", None),
    ("/v1/jobs/{job_id}", "/v1/jobs/a%2Fb%20%C3%A4", {"job_id": "a/b ä"}),
    ("/v1/jobs/{job_id}", "/v1/jobs/a+b", {"job_id": "a+b"}),
    ("/v1/jobs/{job_id}", "/v1/j%6Fbs/a", {"job_id": "a"}),
    ("/v1/jobs/{job_id}:explain", "/v1/jobs/j-1:explain", {"job_id": "j-1"}),
    ("/v1/jobs/{job_id}:explain", "/v1/jobs/j-1:dispatch", None),
    ("/v1/jobs/{job_id}:explain", "/v1/jobs/j-1%3Aexplain", None),
    ("/v1/jobs/{job_id}:explain", "/v1/jobs/:explain", None),
    ("/v1/quorums/{quorum_id}", "/v1/quorums/mission:abc123", {"quorum_id": "mission:abc123"}),
    ("/v1/quorums/{quorum_id}:ack", "/v1/quorums/mission:abc123:ack", {"quorum_id": "mission:abc123"}),
    ("/v1/objects/{object=**}", "/v1/objects/barn/photos/a.jpg", {"object": "barn/photos/a.jpg"}),
    ("/v1/objects/{object=**}:share", "/v1/objects/barn/a:b:share", {"object": "barn/a:b"}),
    ("/v1/objects/{object=**}", "/v1/objects/", None),
    ("/v1/{name=shelves/*/books/*}", "/v1/shelves/1/books/2", {"name": "shelves/1/books/2"}),
    ("/v1/{name=shelves/*}/{rest=**}", "/v1/shelves/1/b/c", {"name": "shelves/1", "rest": "b/c"}),
    ("/v1/{a.b}/*", "/v1/x/y", {"a.b": "x"}),
]


@pytest.mark.parametrize(("template", "path", "fields"), FITS)
def test_a_template_takes_its_fields_out_of_a_path(template: str, path: str, fields: dict[str, str] | None) -> None:
    assert Template.parse(template).match(path) == fields


@pytest.mark.parametrize("text", ["v1", "/", "/v1//a", "/v1/{a", "/v1/{A}", "/v1/{a}b", "/v1/**/a", "/{a}/{a}"])
def test_what_is_no_template_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"/|\w"):
        Template.parse(text)


def test_what_is_percent_encoded_must_be_text() -> None:
    with pytest.raises(BadPath, match="no UTF-8"):
        Template.parse("/v1/jobs/{job_id}").match("/v1/jobs/%ff")


TABLE = Table(
    (verb, Template.parse(path), f"{verb} {path}")
    for verb, path in [
        ("GET", "/v1/jobs"), ("POST", "/v1/jobs"), ("GET", "/v1/jobs/{job_id}"), ("POST", "/v1/jobs/{job_id}:dispatch"),
        ("POST", "/v1/jobs:run"), ("GET", "/v1/jobs/{job_id}/state"), ("GET", "/v1/objects/{object=**}"),
        ("DELETE", "/v1/objects/{object=**}"), ("GET", "/v1/objects/{object=**}:read"),
    ]
)  # fmt: skip


def test_the_template_that_fits_best_counts_alone() -> None:
    assert TABLE.find("/v1/jobs").keys() == {"GET", "POST"}
    assert TABLE.find("/v1/jobs:run").keys() == {"POST"}
    assert TABLE.find("/v1/jobs/a:dispatch") == {"POST": ("POST /v1/jobs/{job_id}:dispatch", {"job_id": "a"})}
    assert TABLE.find("/v1/jobs/a:other") == {"GET": ("GET /v1/jobs/{job_id}", {"job_id": "a:other"})}
    assert TABLE.find("/v1/objects/a/state").keys() == {"GET", "DELETE"}
    assert TABLE.find("/v1/nothing") == TABLE.find("/") == TABLE.find("") == {}


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("/v1/job", "/v1/jobs"),
        ("/v1/job/j-1", "/v1/jobs/{job_id}"),
        ("/v1/jobs/j-1:dispath", "/v1/jobs/{job_id}:dispatch"),
        ("/v1/jobs/j-1/stat", "/v1/jobs/{job_id}/state"),
        ("/v1/completely/else", ""),
    ],
)
def test_a_path_that_is_not_there_is_told_its_neighbour(path: str, meant: str) -> None:
    assert TABLE.nearest(path) == meant


@given(st.text(min_size=1).filter(lambda text: max(text) < "\ud800" or min(text) > "\udfff"))
def test_any_text_is_an_id_when_it_is_percent_encoded(text: str) -> None:
    path = quote(text, safe="")
    assert TABLE.find(f"/v1/jobs/{path}") == {"GET": ("GET /v1/jobs/{job_id}", {"job_id": text})}
    assert TABLE.find(f"/v1/jobs/{path}:dispatch")["POST"][1] == {"job_id": text}
    assert TABLE.find(f"/v1/objects/{path}")["GET"][1] == {"object": text}


@given(st.text())
def test_nothing_that_comes_as_a_path_breaks_the_table(path: str) -> None:
    with contextlib.suppress(BadPath):
        TABLE.find(path)
    TABLE.nearest(path)
