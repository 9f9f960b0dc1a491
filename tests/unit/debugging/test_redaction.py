"""What is taken out of texts that leave the machine."""

from __future__ import annotations

import json

import pytest

from offgrid_node.debugging.redaction import Redaction

SHAPES = {
    "an invite": ("join og1:AAEC-_x9 now", "join og1:[hidden] now"),
    "a header": ("Authorization: Bearer eyJhbGciOi.x-y_z", "Authorization: Bearer [hidden]"),
    "a key in an address": ("GET https://h/x?key=abc&n=2 tried", "GET https://h/x?key=[hidden]&n=2 tried"),
    "a user in a URL": ("mysql://ada:pw@db/x", "mysql://[hidden]@db/x"),
    "a page's code": ("http://127.0.0.1:8001/#code=abc123", "http://127.0.0.1:8001/#code=[hidden]"),
    "a setting": ("auth_key = 'abc'; next", "auth_key = '[hidden]'; next"),
    "an environment": ("OFFGRID_GATEWAY__TOKEN=abc def", "OFFGRID_GATEWAY__TOKEN=[hidden] def"),
    "JSON": ('{"api_key": "abc", "n": 1}', '{"api_key": "[hidden]", "n": 1}'),
    "a PEM block": ("a\n-----BEGIN EC PRIVATE KEY-----\nMII\n-----END EC PRIVATE KEY-----\nb", "a\n[hidden]\nb"),
    "half a PEM block": ("-----BEGIN PRIVATE KEY-----\nMII", "[hidden]"),
    "its other half": ("MII\n-----END PRIVATE KEY-----\nb", "[hidden]\nb"),
    "an option and its value": ("serve --password hunter2 -v", "serve --password [hidden] -v"),
    "one in quotes": ("serve --token 'two words' -v", "serve --token '[hidden]' -v"),
    "one in a list": ('["serve", "--api-key","abc", "-v"]', '["serve", "--api-key","[hidden]", "-v"]'),
    "a short option": ("mysql -phunter2 -u ada", "mysql -p[hidden] -u ada"),
    "a key's file": ("offgrid-key ed25519 hbxpg53v 25stxcqh", "[hidden]"),
}


@pytest.mark.parametrize(("text", "left"), SHAPES.values(), ids=SHAPES)
def test_what_looks_like_a_secret_is_hidden(text: str, left: str) -> None:
    assert Redaction((), {}).of(text) == left


@pytest.mark.parametrize(
    "text",
    [
        "PEER_DEAD seq=7 subject=25stxcqhxvoxoivl",
        "tokens=5 a key was changed",
        "the secret is safe",
        "https://host/path@1",
        "ssh -p 8022 attic",
        "serve --tokens 5 --verbose",
    ],
)
def test_what_does_not_stays(text: str) -> None:
    assert Redaction((), {}).of(text) == text


@pytest.mark.parametrize("secret", ['pass"word', "back\\slash", "C:\\Users\\ann", "grüße\n"])
def test_what_is_known_is_hidden_also_where_a_program_wrote_it_in_quotes(secret: str) -> None:
    redaction = Redaction([secret], {})
    for text in (secret, json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret)):
        assert redaction.of(f"it was {text}.").replace('"', "").replace("'", "") == "it was [hidden]."


def test_values_are_hidden_before_they_become_json() -> None:
    redaction = Redaction(['pass"word'], {'plans/"merger" with acme': "object-1", "tokens": "object-2"})
    value = {
        "trouble": 'no room for plans/"merger" with acme',
        "argv": ["serve", "--token", "x", "-v"],
        "api_key": "abc",
        "nested": ({"note": 'pass"word'}, 7, None, True),
        "tokens": 3,
    }
    assert redaction.of_value(value) == {
        "trouble": "no room for object-1",
        "argv": ["serve", "--token", "[hidden]", "-v"],
        "api_key": "[hidden]",
        "nested": [{"note": "[hidden]"}, 7, None, True],
        "tokens": 3,
    }


def test_known_secrets_and_names_go_wherever_they_stand_the_longer_first() -> None:
    redaction = Redaction(["hunter2!", "hunter2!more", "abc"], {"plans/secret.txt": "object-1", "a": "object-2"})
    assert redaction.of("xhunter2!morey hunter2! abc a plans/secret.txt") == "x[hidden]y [hidden] abc a object-1"
