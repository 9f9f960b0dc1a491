"""What follows from a link for times and lengths."""

from __future__ import annotations

import math

import pytest
from still_link import StillLink

from offgrid_transports.path import ACK_DELAY_MS_MIN, DOWN_MS, SHORT_BYTES, Path
from offgrid_transports.transport import Priority


class Metered(StillLink):
    """Knows no airtime of a frame that is longer than one may be."""

    def airtime_ms(self, length: int) -> float:
        assert 0 < length <= self.frame_bytes
        return super().airtime_ms(length)


@pytest.mark.parametrize(("length", "air_ms"), [(1, 1), (100, 100), (101, 101), (250, 250)])
def test_what_is_longer_than_a_frame_leaves_in_several(length: int, air_ms: float) -> None:
    assert Path(Metered(access_ms=7), "there").sent_ms(length, Priority.JOB) == 7 + air_ms


def test_a_link_that_may_never_send_is_asked_again_soon() -> None:
    path = Path(StillLink(access_ms=math.inf), "there")
    assert path.sent_ms(10, Priority.JOB) == DOWN_MS + 10


def test_an_answer_takes_its_own_access_and_air() -> None:
    path = Path(StillLink(shared=True, access_ms=20), "*")
    assert path.answered_ms(10, Priority.JOB) == 20 + 10 + 3 * 20 + SHORT_BYTES


def test_an_acknowledgement_waits_as_long_as_it_would_take_on_the_air() -> None:
    assert Path(StillLink(shared=True, access_ms=200), "*").ack_delay_ms == 200 + SHORT_BYTES
    assert Path(StillLink(frame_bytes=2), "there").ack_delay_ms == ACK_DELAY_MS_MIN
    assert Path(StillLink(frame_bytes=100), "there").ack_delay_ms == 200


def test_two_are_the_same_where_link_and_address_are() -> None:
    link = StillLink()
    assert Path(link, "a") == Path(link, "a") != Path(link, "b")
    assert Path(link, "a") != Path(StillLink(), "a")
