"""What tests of mail's parts begin with."""

from __future__ import annotations

import pytest
from mail_post import Post


@pytest.fixture
def post() -> Post:
    return Post()
