"""Fuzz targets: what a stranger can send, thrown at the code that meets it first.

Each target says what may come out, exceptions included; anything else is a find, and every find becomes an `@example`.
`make test` runs each target for the same thousand examples every time; `make fuzz` looks for new ones, as many as
FUZZ_EXAMPLES says.
"""

import os

from hypothesis import HealthCheck, settings

fuzz = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "1000")),
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
