"""Tokens, cookies and codes: what they are good for, for how long, and what guessing costs."""

from __future__ import annotations

import asyncio

from offgrid_node.gateway.faults import Refusal
from offgrid_node.gateway.sign_ins import CODE_MS, CODES_MAX, SESSION_MS, SESSIONS_MAX, SignIns
from offgrid_node.gateway.tries import ADDRESSES_MAX, TRIES_MAX, TRY_BACK_MS

TOKEN, HERE, THERE = "correct-horse-battery", "192.0.2.1", "192.0.2.2"


def signs() -> SignIns:
    return SignIns(TOKEN, "offgrid-x")


def value(made: str | Refusal) -> str:
    assert isinstance(made, str)
    return made


def test_a_cookie_is_not_the_token_and_ends_when_it_is_not_used() -> None:
    it = signs()
    cookie = value(it.sign_in(TOKEN, HERE, 0))
    assert TOKEN not in cookie
    assert it.session_of(["other", cookie], SESSION_MS - 1)  # and goes on from here
    assert it.session_of([cookie], 2 * SESSION_MS - 2)
    assert not it.session_of([cookie], 4 * SESSION_MS)


def test_signing_out_ends_it_at_once_and_a_replay_is_nobody() -> None:
    it = signs()
    cookie = value(it.sign_in(TOKEN, HERE, 0))
    it.sign_out([cookie])
    assert not it.session_of([cookie], 1)


def test_what_was_opened_by_a_session_is_told_of_its_end() -> None:
    async def scenario() -> None:
        it, now_ms = signs(), 0
        first, second, third = [it.session_of([value(it.sign_in(TOKEN, HERE, 0))], SESSION_MS - 1) for _ in range(3)]
        assert first is not None
        assert second is not None
        assert third is not None
        ends = [asyncio.create_task(each.over(lambda: now_ms)) for each in (first, second, third)]
        await asyncio.sleep(0)
        first.end()
        await asyncio.wait_for(ends[0], 5)
        assert not ends[1].done()
        for _ in range(SESSIONS_MAX - 1):  # all that there may be beside the last one: the second is pushed out
            it.sign_in(TOKEN, HERE, 0)
        await asyncio.wait_for(ends[1], 5)
        assert not ends[2].done()
        now_ms = 2 * SESSION_MS - 1
        await asyncio.wait_for(third.over(lambda: now_ms), 5)
        ends[2].cancel()

    asyncio.run(scenario())


def test_sessions_are_bounded_and_the_one_that_was_used_the_longest_ago_goes() -> None:
    it = signs()
    cookies = [value(it.sign_in(TOKEN, HERE, 0)) for _ in range(SESSIONS_MAX)]
    assert it.session_of([cookies[0]], 1)
    newest = value(it.sign_in(TOKEN, HERE, 2))
    assert it.session_of([cookies[0]], 3)
    assert it.session_of([newest], 3)
    assert not it.session_of([cookies[1]], 3)


def test_a_links_code_signs_in_once_and_soon() -> None:
    it = signs()
    code, valid_s = it.make_code(0)
    assert valid_s * 1000 == CODE_MS
    assert it.session_of([value(it.sign_in_by_code(code, HERE, CODE_MS - 1))], CODE_MS)
    assert isinstance(it.sign_in_by_code(code, HERE, CODE_MS - 1), Refusal)
    late, _ = it.make_code(0)
    assert isinstance(it.sign_in_by_code(late, HERE, CODE_MS), Refusal)
    first, *_ = [it.make_code(0)[0] for _ in range(CODES_MAX + 1)]
    assert isinstance(it.sign_in_by_code(first, HERE, 0), Refusal)
    assert isinstance(it.sign_in_by_code("", HERE, 0), Refusal)
    assert isinstance(it.sign_in_by_code(TOKEN, HERE, 0), Refusal)


def test_a_links_code_is_not_used_up_by_who_may_not_try_yet() -> None:
    it = signs()
    code, _ = it.make_code(0)
    for n in range(TRIES_MAX):
        it.check_token(f"guess {n}", HERE, 0)
    refused = it.sign_in_by_code(code, HERE, TRY_BACK_MS - 1)
    assert isinstance(refused, Refusal)
    assert refused.code == 429
    assert isinstance(it.sign_in_by_code(code, HERE, TRY_BACK_MS), str)
    assert isinstance(it.sign_in_by_code(code, THERE, TRY_BACK_MS), Refusal)


def test_who_guesses_is_made_to_wait_even_with_the_right_one_and_others_are_not() -> None:
    it = signs()
    answers = [it.check_token(f"guess {n}", HERE, 0) for n in range(TRIES_MAX + 5)]
    assert [answer.code for answer in answers if answer] == [401] * (TRIES_MAX - 1) + [429] * 6
    refused = it.check_token(TOKEN, HERE, TRY_BACK_MS - 1)
    assert refused is not None
    assert refused.headers == (("Retry-After", "1"),)
    assert answers[-1] is not None
    assert answers[-1].headers == (("Retry-After", str(TRY_BACK_MS // 1000)),)
    assert it.check_token(TOKEN, THERE, 0) is None
    assert it.check_token(TOKEN, HERE, TRY_BACK_MS) is None
    assert isinstance(it.sign_in_by_code("guess", HERE, TRY_BACK_MS), Refusal)


def test_right_tokens_cost_nothing() -> None:
    it = signs()
    assert {it.check_token(TOKEN, HERE, 0) for _ in range(100)} == {None}


def test_an_ipv6_network_counts_as_one_and_the_table_is_bounded() -> None:
    it = signs()
    for n in range(TRIES_MAX):
        it.check_token("guess", f"2001:db8::{n:x}", 0)
    assert it.check_token(TOKEN, "2001:db8::ffff", 0) is not None
    assert it.check_token(TOKEN, "2001:db8:0:1::1", 0) is None
    for n in range(ADDRESSES_MAX):
        it.check_token("guess", f"10.0.{n // 256}.{n % 256}", 0)
    assert len(it._tries._left) == ADDRESSES_MAX
