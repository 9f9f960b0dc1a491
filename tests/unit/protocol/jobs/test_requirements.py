"""The language of requirements: what it says of a host, what it refuses and how it says so."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid.v1 import jobs_pb2
from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.jobs import requirements
from offgrid_node.protocol.jobs.bounds import REQUIREMENTS_CHARS_MAX
from offgrid_node.protocol.jobs.requirements import parse
from offgrid_node.protocol.jobs.requirements.attributes import ATTRIBUTES
from offgrid_node.protocol.jobs.requirements.parser import COMPARISONS_MAX, DEPTH_MAX, LIST_MAX

BARN = jobs_pb2.HostProfile(
    host="n-1",
    name="barn",
    slots=4,
    memory_mb=2048,
    cpus=8,
    gpus=[jobs_pb2.Gpu(model="RTX 4090", memory_mb=24_000), jobs_pb2.Gpu(model="T4", memory_mb=16_000)],
    models=["llama3", "qwen2"],
    labels={"room": "attic", "two-words": 'say "hi"'},
    isolation={"process": "bwrap"},
    platform="linux/x86_64",
    failure_domain="house",
    executors=["wasm", "process:wc"],
)
BARE = jobs_pb2.HostProfile(host="n-2")

HOLDS = [
    "",
    "   ",
    "memory_mb >= 2048",
    "memory_mb == 2048 and cpus > 7.5",
    "2000 < memory_mb",
    "memory_mb < gpu.memory_mb",
    "gpu.count == 2 and gpu.memory_mb == 24000",
    '"T4" in gpu.model',
    '"llama3" in models and "gemma" not in models',
    '"process:wc" in executors',
    'label.room == "attic"',
    "label.room in ['barn', 'attic']",
    'label.cellar == ""',
    'label.cellar != "x"',
    r"""label.two-words == "say \"hi\"" and label.two-words == 'say "hi"'""",
    'isolation.process == "bwrap"',
    'isolation.wasm == ""',
    'platform == "linux/x86_64" and domain == "house"',
    'host == "barn" and host == "n-1" and host in ["n-9", "barn"]',
    'host != "kitchen" and host not in ["kitchen", "n-9"]',
    "cpus in [4, 8]",
    "not cpus < 8",
    "cpus > 100 or cpus == 8 and slots == 4",
    "(cpus > 100 or cpus == 8) and slots == 4",
    "not (cpus > 100 or slots > 100)",
]
DOES_NOT = {
    "memory_mb >= 4096": "memory_mb >= 4096 is false: it has 2048",
    "cpus > 100 and slots == 4 and gpu.count > 2": "cpus > 100 is false: it has 8; gpu.count > 2 is false: it has 2",
    "cpus > 100 or slots > 100": "cpus > 100 is false: it has 8 and slots > 100 is false: it has 4",
    'label.room == "barn"': 'label.room == "barn" is false: it has "attic"',
    'label.cellar == "x"': 'label.cellar == "x" is false: it has none',
    '"gemma" in models': '"gemma" in models is false: it has ["llama3", "qwen2"]',
    'host != "barn"': 'host != "barn" is false: it has ["n-1", "barn"]',
    "not cpus == 8": "not cpus == 8 is false",
    "memory_mb > gpu.memory_mb": "memory_mb > gpu.memory_mb is false: it has 2048 and 24000",
}
WRONG = {
    "memory_gb > 3": (1, "did you mean 'memory_mb'?"),
    "cpus > 1 and lable.room == 'x'": (14, "did you mean 'label.room'?"),
    "colour == 'x'": (1, "allowed: cpus, domain, executors"),
    "label. == 'x'": (6, "is not known"),
    "label.a.b == 'x'": (1, "'label.a.b' is not known"),
    "memory_mb = 3": (11, "equality is '=='"),
    "cpus > 1 && cpus < 3": (10, "write 'and', 'or', 'not'"),
    "!cpus > 1": (1, "write 'and', 'or', 'not'"),
    "memory_mb >": (12, "the text ends where a name"),
    "memory_mb": (10, "allowed here: ==, !=, <, <=, >, >=, in, not in"),
    "models": (7, "none: a list stands behind 'in'"),
    "memory_mb 3": (11, "'3' stands where a comparison is expected"),
    "memory_mb > 'x'": (11, "'>' here wants a number on its right"),
    "memory_mb in 3": (11, "'in' here wants a list of numbers on its right"),
    "platform < 'x'": (10, "a text knows ==, !=, in, not in"),
    "models == 'x'": (8, "none: a list stands behind 'in'"),
    "label.room > 3": (12, "a text knows ==, !=, in, not in"),
    "1 < 2": (1, "nothing is asked of the host"),
    "cpus in [1, 'a']": (9, "not both"),
    "cpus in []": (10, "']' stands where a number or a text in quotes is expected"),
    "cpus in [1": (11, "the text ends where ']' is expected"),
    "(cpus > 1": (10, "the text ends where ')' is expected"),
    "cpus > 1)": (9, "')' stands where 'and', 'or' or the end is expected"),
    "cpus > 1 cpus > 2": (10, "'cpus' stands where 'and', 'or' or the end is expected"),
    "1 < cpus < 3": (10, "'<' stands where 'and', 'or' or the end is expected"),
    "cpus not 3": (10, "'3' stands where 'in' is expected"),
    "and cpus > 1": (1, "'and' stands where a name"),
    "label.room == 'x": (15, "does not end"),
    "label.room == 'a\nb'": (15, "control character"),
    "cpus > 4x": (8, "is not known"),
    "cpus > 1.2.3": (8, "is not known"),
    "cpus > -1": (8, "is not known"),
    "cpus > " + "9" * 19: (8, "at most 18 digits"),
    "cpus > 1\x1c": (9, "is not known"),
    "cpus > 1 €": (10, "is not known"),
}


@pytest.mark.parametrize("text", HOLDS)
def test_holds_for_a_host_that_is_so(text: str) -> None:
    assert parse(text).holds(BARN), parse(text).why_not(BARN)
    assert parse(text).why_not(BARN) == ""


@pytest.mark.parametrize(("text", "why"), DOES_NOT.items())
def test_says_why_it_does_not_hold(text: str, why: str) -> None:
    assert not parse(text).holds(BARN)
    assert parse(text).why_not(BARN) == why


def test_what_a_host_does_not_say_is_nothing_and_no_error() -> None:
    for name, attribute in ATTRIBUTES.items():
        assert attribute.read(BARE) in (0, "", (), ("n-2", "")), name


@pytest.mark.parametrize(("text", "where", "what"), [(text, *rest) for text, rest in WRONG.items()])
def test_says_where_it_goes_wrong_and_what_is_allowed(text: str, where: int, what: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        parse(text, "job.requirements")
    assert refused.value.violations[0].field == "job.requirements"
    assert f"at character {where}: " in refused.value.message
    assert what in refused.value.message


def test_the_manual_names_every_attribute_with_its_type() -> None:
    manual = (Path(__file__).parents[4] / "docs" / "requirements.md").read_text(encoding="utf-8")
    for name, attribute in ATTRIBUTES.items():
        assert f"| `{name}` | {attribute.kind.value} |" in manual


class TestItsBounds:
    @pytest.mark.parametrize(
        ("most", "beyond"),
        [
            ("cpus > 1" + " " * (REQUIREMENTS_CHARS_MAX - 8), "cpus > 1" + " " * (REQUIREMENTS_CHARS_MAX - 7)),
            ("(" * DEPTH_MAX + "cpus > 1" + ")" * DEPTH_MAX, "(" * 17 + "cpus > 1" + ")" * 17),
            ("not " * DEPTH_MAX + "cpus > 1", "not " * (DEPTH_MAX + 1) + "cpus > 1"),
            (" or ".join(["cpus>1"] * COMPARISONS_MAX), " or ".join(["cpus>1"] * (COMPARISONS_MAX + 1))),
            (f"cpus in [{','.join(['1'] * LIST_MAX)}]", f"cpus in [{','.join(['1'] * (LIST_MAX + 1))}]"),
        ],
    )
    def test_are_reached_and_not_passed(self, most: str, beyond: str) -> None:
        assert parse(most)
        with pytest.raises(InvalidRequest, match=r"more than|at most"):
            parse(beyond)

    def test_hold_for_brackets_that_nobody_closes(self) -> None:
        with pytest.raises(InvalidRequest, match="nested"):
            parse("(" * REQUIREMENTS_CHARS_MAX)

    def test_hold_for_what_it_says_of_a_host(self) -> None:
        loud = jobs_pb2.HostProfile(host="n", labels={"a": "x" * 10_000})
        assert len(parse(" or ".join(['label.a == "1"'] * 30)).why_not(loud)) <= 400


numbers = st.one_of(st.integers(0, 10**6).map(str), st.decimals(0, 1000, places=3).map(lambda d: format(d, "f")))
texts = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF, exclude_characters="\x7f"), max_size=6).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
of_numbers = st.sampled_from(["memory_mb", "cpus", "slots", "gpu.count", "gpu.memory_mb"])
of_texts = st.sampled_from(["platform", "domain", "label.room", "label.x", "isolation.process", "host"])
of_lists = st.sampled_from(["models", "executors", "gpu.model"])
orders = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
equals = st.sampled_from(["==", "!="])
members = st.sampled_from(["in", "not in"])


def listed(entries: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(entries, min_size=1, max_size=3).map(lambda found: f"[{','.join(found)}]")


comparisons = st.one_of(
    st.tuples(of_numbers, orders, st.one_of(numbers, of_numbers)),
    st.tuples(numbers, orders, of_numbers),
    st.tuples(of_texts, equals, texts),
    st.tuples(of_numbers, members, listed(numbers)),
    st.tuples(of_texts, members, listed(texts)),
    st.tuples(texts, members, of_lists),
).map(" ".join)
expressions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' and '.join(parts)})"),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"({' or '.join(parts)})"),
        inner.map(lambda part: f"not {part}"),
    ),
    max_leaves=6,
)
profiles = st.builds(
    jobs_pb2.HostProfile,
    host=st.sampled_from(["n-1", "n-2"]),
    memory_mb=st.integers(0, 10**6),
    cpus=st.integers(0, 64),
    slots=st.integers(0, 8),
    models=st.lists(st.text(max_size=3), max_size=3),
    labels=st.dictionaries(st.sampled_from(["room", "x"]), st.text(max_size=3)),
)


@given(expressions)
def test_its_written_form_means_the_same_and_stays(text: str) -> None:
    if len(text) > REQUIREMENTS_CHARS_MAX:
        return
    written = str(parse(text))
    if len(written) <= REQUIREMENTS_CHARS_MAX:
        assert str(parse(written)) == written
        for profile in (BARN, BARE):
            assert parse(written).holds(profile) == parse(text).holds(profile)


@given(expressions, profiles)
def test_it_holds_when_there_is_no_reason_why_not(text: str, profile: jobs_pb2.HostProfile) -> None:
    if len(text) <= REQUIREMENTS_CHARS_MAX:
        requirement = parse(text)
        assert requirement.holds(profile) == (requirement.why_not(profile) == "")


words = st.sampled_from(
    ["cpus", "models", "label.x", "label.", "and", "or", "not", "in", "(", ")", "[", "]", ",", "==", "<", "!", "1",
     "1.", '"x"', "'", '"', "\\", "\x1c", "\n", "é", "&&", "=", "-", "_", "."]
)  # fmt: skip


@given(st.one_of(st.text(max_size=80), st.lists(words, max_size=30).map(" ".join), st.lists(words).map("".join)))
def test_no_text_does_anything_but_be_read_or_refused(text: str) -> None:
    try:
        requirement = parse(text)
    except InvalidRequest as refused:
        assert refused.violations[0].field == "requirements"  # noqa: PT017 - either of two ends is right
    else:
        assert requirement.holds(BARN) in (True, False)


def test_one_text_is_read_once_however_many_orders_of_a_call_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []
    sound = requirements.parse_tree

    def count(text: str, field: str) -> object:
        read.append(text)
        return sound(text, field)

    monkeypatch.setattr(requirements, "parse_tree", count)
    parsed = {parse("slots >= 7 and cpus >= 77", f"orders[{number}].requirements") for number in range(300)}
    assert (len(parsed), len(read)) == (1, 1)


def test_a_refusal_names_the_field_that_was_asked_about() -> None:
    for field in ("orders[0].requirements", "orders[1].requirements"):
        with pytest.raises(InvalidRequest) as refused:
            parse("slots >=", field)
        assert refused.value.violations[0].field == field
