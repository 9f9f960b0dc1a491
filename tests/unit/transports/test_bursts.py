"""On a shared medium: the last two frames of a burst ask, and the next one waits for the word."""

from __future__ import annotations

from offgrid_transports.bursts import BURST_FRAMES, BURST_FRAMES_MAX, PART_BYTES, Bursts

ROOM = 100


def asked(bursts: Bursts, frames: int, *, first: int = 0, whole: bool = False) -> list[int | None]:
    """What each of so many frames asks, of a message that fills all of them."""
    return [
        bursts.question(first + at, whole=whole, waiting_bytes=(frames - at - 1) * (ROOM - PART_BYTES), room=ROOM)
        for at in range(frames)
    ]


def test_the_last_two_frames_ask_and_the_first_of_them_says_that_one_follows() -> None:
    assert asked(Bursts(), 5) == [None, None, None, 1, 0]
    assert asked(Bursts(), 1) == [0]


def test_a_long_message_asks_at_the_end_of_each_burst() -> None:
    answers = asked(Bursts(), 2 * BURST_FRAMES)
    assert [at for at, asks in enumerate(answers) if asks == 1] == [BURST_FRAMES - 2, 2 * BURST_FRAMES - 2]
    assert [at for at, asks in enumerate(answers) if asks == 0] == [BURST_FRAMES - 1, 2 * BURST_FRAMES - 1]


def test_what_stands_whole_in_its_frame_asks_for_nothing_unless_pieces_went_before() -> None:
    bursts = Bursts()
    assert asked(bursts, 2 * BURST_FRAMES, whole=True) == [None] * 2 * BURST_FRAMES
    assert bursts.question(100, whole=False, waiting_bytes=200, room=ROOM) is None
    assert bursts.question(101, whole=True, waiting_bytes=0, room=ROOM) == 0


def test_who_has_asked_leaves_it_to_the_answer() -> None:
    bursts = Bursts()
    asked(bursts, 3)
    assert bursts.full
    assert bursts.answered(0) == 0
    assert bursts.full
    assert bursts.answered(2) == 2
    assert not bursts.full


def test_word_of_the_last_but_one_is_word_of_the_last_for_it_was_waited_for() -> None:
    bursts = Bursts()
    asked(bursts, 5)
    assert bursts.answered(3) == 4
    asked(bursts, 5, first=5)
    assert bursts.answered(7) == 7, "no frame that asked has come"
    assert bursts.answered(9) == 9


def ends(bursts: Bursts, frames: int) -> int:
    """How many of a long message's frames leave before word is waited for."""
    return next(at for at, asks in enumerate(asked(bursts, frames), start=1) if asks == 0)


def test_bursts_grow_while_word_comes_and_begin_anew_from_two_frames_that_ask() -> None:
    bursts = Bursts()
    lengths = []
    for _ in range(4):
        lengths.append(ends(bursts, 200))
        bursts = Bursts() if not lengths else bursts
        bursts.answered(10_000)
    assert lengths == [BURST_FRAMES, 2 * BURST_FRAMES, BURST_FRAMES_MAX, BURST_FRAMES_MAX]
    bursts.unanswered()
    assert asked(bursts, 20)[:2] == [1, 0]
    bursts.answered(10_000)
    assert ends(bursts, 200) == BURST_FRAMES


def test_when_no_word_is_expected_any_more_the_burst_under_way_goes_on() -> None:
    bursts = Bursts()
    assert bursts.question(0, whole=False, waiting_bytes=0, room=ROOM) == 0
    assert bursts.full
    assert bursts.question(9, whole=False, waiting_bytes=500, room=ROOM) is None
    bursts.clear()
    assert not bursts.full
    assert bursts.has_pieces
    assert bursts.question(10, whole=True, waiting_bytes=0, room=ROOM) == 0, "nobody else asks for that piece"
    assert not bursts.has_pieces
