"""Records whose pages are looked at, and in a browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..conftest import Results

DIGITS, COUNT = "embedded/digits", "embedded/count"


@pytest.fixture
def tuned_results(results: Results) -> Results:
    for task in (DIGITS, COUNT, "embedded/groups"):
        results.task(task, "natural", chance_percent=10.0)
    results.method("lora", "reparameterized", defaults={"rank": 8})
    for method, test in (("lora", 60.0), ("weird/<b>", 70.0)):
        results.run(method, DIGITS, test, config={"rank": 8})
        results.run(method, COUNT, test, config={"rank": 8})
        for task in (
            DIGITS,
            COUNT,
        ):
            # the studies, of trials 0, 2 and 0, 3 and 0, 1, choose 0, 3 and 1
            of_three = (test + 3, test + 4, test + 5)
            finals = {1: of_three, 0: (test, None, test), 3: of_three, 2: (99.0,)}
            results.search(method, task, [60.0, 65.25, None, 70.0], finals, studies=3)
    results.search("lora", "embedded/groups", [60.0], {}, studies=3)
    return results
