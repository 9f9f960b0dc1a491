"""What is taken out of texts that leave the machine."""

from __future__ import annotations

import json
import time

import pytest

from offgrid_node.debugging.redaction import Redaction

LOG_BYTES = 100_000
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
    "a short option that begins as a word": ("mysql -pprintery7 -u ada", "mysql -p[hidden] -u ada"),
    "a short option in capitals": ("mosquitto_pub -u me -P hunter2 -v", "mosquitto_pub -u me -P [hidden] -v"),
    "a short option in a list": ('["curl", "-p", "hunter2"]', '["curl", "-p", "[hidden]"]'),
    "a user and a password": ("curl -u bob:hunter2 http://x", "curl -u [hidden] http://x"),
    "them in a list": ('["curl", "--user", "bob:hunter2"]', '["curl", "--user", "[hidden]"]'),
    "an option's short name": ("notify --pw=hunter2 now", "notify --pw=[hidden] now"),
    "a short name": ("pass=abc db_pwd: hunter2 PGPASSWORD=x", "pass=[hidden] db_pwd: [hidden] PGPASSWORD=[hidden]"),
    "a sentence": ("the password is hunter2", "the password is [hidden]"),
    "a sentence of a token": ("its token was a8f9", "its token was [hidden]"),
    "any scheme of a header": ("Authorization: Token abc123", "Authorization: Token [hidden]"),
    "a header in a list": ("(b'authorization', b'abc123')", "(b'authorization', b'[hidden]')"),
    "a cookie": ("Cookie: offgrid-1=de; b=ad\nnext", "Cookie: [hidden]\nnext"),
    "JSON in JSON": (r'{"said": "{\"api_key\": \"a b\"}"}', r'{"said": "{\"api_key\": \"[hidden]\"}"}'),
    "a value with a quote in it": (r'{"token": "a\"b", "n": 1}', '{"token": "[hidden]", "n": 1}'),
    "a quote that does not end": ('token="a b', 'token="[hidden]'),
    "a key by its prefix": ("with sk-proj-abcdefghijklmnop0123 at", "with [hidden] at"),
    "a key of GitHub": ("ghp_abcdefghijklmnop0123", "[hidden]"),
    "a JWT": ("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abcDEF of", "[hidden] of"),
    "a hook's topic": ("POST https://ntfy.sh/my-alerts 200", "POST https://ntfy.sh/[hidden] 200"),
    "a word without end": ("a " + "xA" * 500 + " b", "a [hidden] b"),
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
        "9 passed, 1 bypass: none",
        "grpcurl -plaintext -proto offgrid.proto -unix /run/offgrid.sock list",
        "find . -path x -prune -o -print0",
        "mkdir -p /var/lib/x; journalctl -u offgrid-node",
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


@pytest.mark.parametrize(
    ("argv", "left"),
    [
        (["mysql", "-p", "hunter2"], ["mysql", "-p", "[hidden]"]),
        (["mosquitto_pub", "-P", "hunter2", "-v"], ["mosquitto_pub", "-P", "[hidden]", "-v"]),
        (["ssh", "-p", "8022", "attic"], ["ssh", "-p", "8022", "attic"]),
        (["curl", "-u", "bob:hunter2", "x"], ["curl", "-u", "[hidden]", "x"]),
        (["journalctl", "-u", "offgrid-node"], ["journalctl", "-u", "offgrid-node"]),
        (["serve", "--api-key", "x"], ["serve", "--api-key", "[hidden]"]),
    ],
)
def test_what_follows_a_passwords_option_among_what_a_program_was_given_is_hidden(
    argv: list[str], left: list[str]
) -> None:
    assert Redaction((), {}).of_value(argv) == left


def test_known_secrets_and_names_go_wherever_they_stand_the_longer_first() -> None:
    redaction = Redaction(["hunter2!", "hunter2!more", "abc"], {"plans/secret.txt": "object-1", "a": "object-2"})
    assert redaction.of("xhunter2!morey hunter2! abc a plans/secret.txt") == "x[hidden]y [hidden] abc a object-1"


@pytest.mark.parametrize(
    "word", ["a", "a-", "token", "--token", "token ", "-p", "x://", "eyJ.", "MII\n", '\\"', "og1:"]
)
def test_the_time_is_linear_whatever_the_text(word: str) -> None:
    """A tenth of the log that a bundle may have; in quadratic time each took minutes."""
    text = word * (LOG_BYTES // len(word))
    began = time.process_time()
    Redaction(["sekrit"], {}).of(text)
    assert time.process_time() - began < 2


def test_ten_thousand_names_are_looked_for_at_once() -> None:
    names = {f"{number:x}-{number}-name": f"object-{number}" for number in range(10_000)}
    text = "a line of the log with 270f-9999-name in it\n" * (LOG_BYTES // 44)
    began = time.process_time()
    assert Redaction((), names).of(text).splitlines()[-1] == "a line of the log with object-9999 in it"
    assert time.process_time() - began < 2
