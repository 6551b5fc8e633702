"""Fuzz targets: what a stranger can send, thrown at the code that meets it first.

Each target says what may come out, exceptions included; anything else is a find, and every find becomes an `@example`.
`make test` runs each target for the same thousand examples every time, so that it judges the change and not the dice;
`make fuzz` looks for new ones, as many as FUZZ_EXAMPLES says.
"""

import os

from hypothesis import HealthCheck, settings

_EXAMPLES = os.environ.get("FUZZ_EXAMPLES")

fuzz = settings(
    max_examples=int(_EXAMPLES or "1000"),
    derandomize=_EXAMPLES is None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.large_base_example],
)
