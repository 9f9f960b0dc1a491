"""[[host.rules]]: whose jobs a host takes, from the file to the machine; and what is said of rules that are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from offgrid_node.config import Config, ConfigError, load, template
from offgrid_node.host_rules import local_offset_s, rules_of
from offgrid_node.protocol.jobs.settings import Rule

ID = "a" * 52


def loaded(folder: Path, text: str) -> Config:
    (folder / "offgrid.toml").write_text(f'mesh.name = "home"\n{text}')
    return load(folder / "offgrid.toml", {})


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as refused:
        loaded(folder, text)
    return [str(problem).partition("offgrid.toml:")[2] for problem in refused.value.problems]


def test_there_are_none_at_first(tmp_path: Path) -> None:
    assert rules_of(loaded(tmp_path, "")) == ()


def test_an_endpoint_with_fewer_slots_than_the_host_has_a_rule_of_its_own(tmp_path: Path) -> None:
    text = '[host]\nslots = 4\nprice_micro = 70\n[host.llm]\nendpoint = "http://127.0.0.1:1/v1"\nslots = '
    models, rest = rules_of(loaded(tmp_path, f"{text}2"))
    assert (models.executors, models.slots, models.price_micro) == (("llm:*",), 2, 70)
    assert (rest.slots, any(pattern.startswith("llm") or pattern == "*" for pattern in rest.executors)) == (4, False)
    assert rules_of(loaded(tmp_path, f"{text}4")) == ()
    assert len(rules_of(loaded(tmp_path, f'{text}2\n[[host.rules]]\nname = "mine"\n'))) == 1


def test_they_come_in_their_order_with_their_defaults(tmp_path: Path) -> None:
    config = loaded(
        tmp_path,
        """
[host]
price_micro = 70
[[host.rules]]
name = "friends"
owners = ["attic", "barn"]
executors = ["process:*", "wasm"]
price_micro = 0
slots = 2
hours = "22:00-06:30"
tokens_per_day = 5_000_000
jobs_per_day = 9
[[host.rules]]
name = "not-him"
owners = ["shed"]
deny = true
[[host.rules]]
name = "all"
""",
    )
    assert rules_of(config) == (
        Rule("friends", ("attic", "barn"), ("process:*", "wasm"), 0, 2, (1_320, 390), 5_000_000, 9),
        Rule("not-him", ("shed",), price_micro=70, deny=True),
        Rule("all", price_micro=70),
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('hours = "22-6"', """hours: is '22-6', no span of hours. allowed: "" = always"""),
        ('hours = "22-6"', 'did you mean "22:00-06:00"?'),
        ('hours = "06:00-06:00"', "hours: is '06:00-06:00', no span of hours"),
        ('hours = "24:00-06:00"', "no span of hours"),
        ('owners = ["Big Barn"]', "has 'Big Barn', neither a member's name nor an id"),
        ('owners = ["Big Barn"]', 'did you mean "big-barn"?'),
        ("owners = []", "owners: is empty"),
        ('owners = "*"', "owners: must be a list, is the text '*'"),
        ('executors = ["process:*x"]', "has 'process:*x', no executor's label"),
        ("price_micro = -2", "price_micro: is -2, too small. allowed: -1 to"),
        ("slots = 1.5", "slots: must be an integer, is a float"),
        ("deny = 1", "deny: must be true or false"),
        ("price = 3", "price: is an unknown key. allowed: name, owners,"),
        ("price = 3", "did you mean price_micro?"),
    ],
)
def test_a_wrong_value_is_named_with_its_line_and_what_is_allowed(tmp_path: Path, line: str, said: str) -> None:
    [problem] = problems(tmp_path, f'[[host.rules]]\nname = "one"\n[[host.rules]]\nname = "two"\n{line}\n')
    assert problem.startswith("6:")
    assert "host.rules[1]." in problem
    assert said in problem


def test_a_rule_needs_a_name_of_its_own(tmp_path: Path) -> None:
    [missing] = problems(tmp_path, "[[host.rules]]\nslots = 1\n")
    assert "host.rules[0].name: is missing" in missing
    [twice] = problems(tmp_path, '[[host.rules]]\nname = "a"\n[[host.rules]]\nname = "a"\n')
    assert "host.rules: has two rules called 'a'" in twice


@pytest.mark.parametrize("text", ['host.rules = ["friends"]', 'host.rules = "friends"', "host.rules = 3"])
def test_a_rule_is_a_table(tmp_path: Path, text: str) -> None:
    [problem] = problems(tmp_path, text)
    assert problem.startswith("2:")
    assert "must be a" in problem


def test_the_environment_cannot_say_rules_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "offgrid.toml").write_text('mesh.name = "home"\n')
    with pytest.raises(ConfigError, match=r"OFFGRID_HOST__RULES: must be a table"):
        load(tmp_path / "offgrid.toml", {"OFFGRID_HOST__RULES": "friends"})


def test_init_can_write_them(tmp_path: Path) -> None:
    rules = [{"name": "friends", "owners": ["attic"], "slots": 1}]
    (tmp_path / "offgrid.toml").write_text(template("home", "attic", values={"host.rules": rules}))
    assert rules_of(load(tmp_path / "offgrid.toml", {})) == (Rule("friends", ("attic",), price_micro=1_000, slots=1),)


def test_local_time_is_the_machines_and_any_clock_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    if hasattr(time, "tzset"):
        monkeypatch.setenv("TZ", "UTC-5:30")
        time.tzset()
        assert local_offset_s(1_700_000_000) == 19_800
        monkeypatch.delenv("TZ")
        time.tzset()
    assert local_offset_s(10**20) == 0
