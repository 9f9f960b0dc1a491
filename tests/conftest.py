"""For all tests: none fails because a machine is slow, none takes long (`soak tests` searches further), and none has a
name that is long to send between processes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

ID_CHARS_MAX = 80

steady = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", steady, max_examples=25)
settings.register_profile("soak", steady, max_examples=1_000)
settings.load_profile("steady")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """What a test is given goes into its name, and that to every worker and back: of megabytes, how many is enough."""
    return f"{argname}-of-{len(val)}" if isinstance(val, str | bytes) and len(val) > ID_CHARS_MAX else None
