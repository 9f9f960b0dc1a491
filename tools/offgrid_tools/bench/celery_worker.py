"""What the benchmark's Celery worker loads (`celery -A`): the application at the Redis that jobs_celery.py started."""

from __future__ import annotations

import os

from offgrid_tools.bench.jobs_celery import URL, make_app

app = make_app(os.environ[URL])
