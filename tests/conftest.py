"""For all tests: none fails because a machine is slow, none takes long (`soak tests` searches further), and none has a
name that is long to send between processes."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

ID_CHARS_MAX = 80

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", steady, max_examples=25)
settings.register_profile("soak", steady, max_examples=1_000)
settings.load_profile("steady")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A file's tests stay on one worker unless they say otherwise, so that what they share is started once, and that
    thousands of tests need not be dealt out one by one. A simulation is long enough to go alone."""
    for item in items:
        if item.path.parent.name != "sim" and item.get_closest_marker("xdist_group") is None:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Tests stay as long as the process does: the garbage collector need not look through them again and again."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line: why tests were skipped, and how many for each reason."""
    reasons = Counter(
        str(skipped.longrepr[2]).removeprefix("Skipped: ") for skipped in terminalreporter.getreports("skipped")
    )
    if reasons:
        said = "; ".join(f"{reason} ({count})" for reason, count in reasons.most_common())
        terminalreporter.write_line(f"skipped: {said}")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """What a test is given goes into its name, and that to every worker and back: of megabytes, how many is enough."""
    return f"{argname}-of-{len(val)}" if isinstance(val, str | bytes) and len(val) > ID_CHARS_MAX else None
