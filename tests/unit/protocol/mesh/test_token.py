"""An invite token survives being read aloud and typed; a mistyped one is refused, and told where."""

from __future__ import annotations

import string
from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from offgrid_node.protocol.errors import InvalidRequest
from offgrid_node.protocol.mesh.token import ADDRESSES_MAX, TOKEN_CHARS_MAX, InviteToken

PLAIN = InviteToken(b"meshmesh", b"secretsecretsecr")
ROUTED = InviteToken(b"meshmesh", b"secretsecretsecr", ("10.0.0.7:7400", "[fe80::1]:7400", "my-node.local:65535"))

labels = st.text("az09-", max_size=6).map("h{}0".format)
hosts = st.one_of(
    st.lists(labels, min_size=1, max_size=3).map(".".join),
    st.integers(0, 2**32 - 1).map(IPv4Address).map(str),
    st.integers(0, 2**128 - 1).map(IPv6Address).map("[{}]".format),
)
addresses = st.builds("{}:{}".format, hosts, st.integers(1, 65_535))
tokens = st.builds(
    InviteToken,
    st.binary(min_size=8, max_size=8),
    st.binary(min_size=16, max_size=16),
    st.lists(addresses, max_size=ADDRESSES_MAX).map(tuple),
)


@given(tokens)
def test_it_reads_what_it_writes(token: InviteToken) -> None:
    text = str(token)
    assert text.startswith("og1:")
    assert InviteToken.parse(text) == token


@given(tokens, st.randoms(use_true_random=False))
def test_case_spaces_and_dashes_do_not_matter(token: InviteToken, rng: object) -> None:
    code, at, tail = str(token).partition("@")
    grouped = "-".join(code[at_ : at_ + 5] for at_ in range(4, len(code), 5))
    typed = f"  OG1: {grouped.upper()}\n {at} {tail.upper().replace(',', ' , ')} "
    assert InviteToken.parse(typed) == token


def accepted_typos(token: InviteToken) -> list[str]:
    """Every text that differs from the token in one character and is still read as another token."""
    text = str(token)
    wrong = []
    for at in range(len(text)):
        for char in string.printable:
            typo = text[:at] + char + text[at + 1 :]
            try:
                if InviteToken.parse(typo) != token:
                    wrong.append(typo)
            except InvalidRequest:
                continue
    return wrong


@pytest.mark.parametrize("token", [PLAIN, ROUTED], ids=["plain", "routed"])
def test_every_mistyped_character_is_refused(token: InviteToken) -> None:
    assert accepted_typos(token) == []


@given(tokens, st.data())
def test_a_mistyped_character_is_refused_in_any_token(token: InviteToken, data: st.DataObject) -> None:
    text = str(token)
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.sampled_from(string.printable))
    try:
        assert InviteToken.parse(text[:at] + char + text[at + 1 :]) == token
    except InvalidRequest:
        assert char.lower() != text[at]


@given(tokens, st.data())
def test_two_neighbours_swapped_are_refused(token: InviteToken, data: st.DataObject) -> None:
    text = str(token)
    at = data.draw(st.integers(4, 4 + 40))
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    if swapped != text:
        with pytest.raises(InvalidRequest):
            InviteToken.parse(swapped)


@given(st.text(max_size=120) | st.text(max_size=60).map("og1:{}".format))
def test_anything_else_is_an_invalid_request(text: str) -> None:
    with pytest.raises(InvalidRequest):
        InviteToken.parse(text)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must begin with 'og1:'"),
        ("og2:aaaa", "must begin with 'og1:'"),
        (str(PLAIN)[:-1], "41 characters after 'og1:', there must be 42"),
        (str(PLAIN) + "a", "43 characters"),
        (str(PLAIN)[:8] + "0" + str(PLAIN)[9:], "'0' at position 5 after 'og1:'.*is it o?"),
        (str(PLAIN)[:8] + "!" + str(PLAIN)[9:], "'!' at position 5"),
        (str(PLAIN)[:8] + ("a" if str(PLAIN)[8] != "a" else "b") + str(PLAIN)[9:], "the checksum does not fit"),
        (str(ROUTED).replace("10.0.0.7", "10.0.0.8"), "the checksum does not fit"),
        (str(PLAIN) + "@", "no address"),
        ("og1:" + "a" * TOKEN_CHARS_MAX, f"at most {TOKEN_CHARS_MAX}"),
    ],
)
def test_a_refusal_says_what_is_wrong_and_where(text: str, reason: str) -> None:
    with pytest.raises(InvalidRequest, match=reason) as caught:
        InviteToken.parse(text)
    assert [violation.field for violation in caught.value.violations] == ["token"]
    assert str(caught.value).endswith("Copy all of it, or have another made by `offgrid mesh invite` at a member")


@pytest.mark.parametrize(
    "address",
    ["", "host", "host:", "host:0", "host:65536", "host:07", "a b:1", "a,b:1", "::1:7", "[::1]", "[zz]:1",
     "[fe80::1%eth0]:1", "a..b:1", "-a:1", "a@b:1", "ä:1", "h" * 254 + ":1", "h:\uff11"],
)  # fmt: skip
def test_an_address_that_could_not_be_dialled_is_refused(address: str) -> None:
    with pytest.raises(InvalidRequest, match="is no address"):
        InviteToken(b"meshmesh", b"secretsecretsecr", (address,))


def test_addresses_are_bounded() -> None:
    most = tuple(f"host-{index}:7400" for index in range(ADDRESSES_MAX))
    assert InviteToken.parse(str(InviteToken(b"meshmesh", b"s" * 16, most))).addresses == most
    with pytest.raises(InvalidRequest, match=f"at most {ADDRESSES_MAX}"):
        InviteToken(b"meshmesh", b"s" * 16, (*most, "one-more:7400"))


@pytest.mark.parametrize(("tag", "secret"), [(7, 16), (9, 16), (8, 15), (8, 17)])
def test_lengths_are_fixed(tag: int, secret: int) -> None:
    with pytest.raises(InvalidRequest):
        InviteToken(bytes(tag), bytes(secret))


def test_its_id_follows_from_the_secret_and_gives_nothing_away() -> None:
    assert PLAIN.invite_id == ROUTED.invite_id
    assert len(PLAIN.invite_id) == 8
    assert PLAIN.invite_id not in PLAIN.secret
    assert InviteToken(b"meshmesh", b"another secret!!").invite_id != PLAIN.invite_id
    assert repr(PLAIN.secret) not in repr(PLAIN)
