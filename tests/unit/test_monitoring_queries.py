"""The filters that the guide recommends are those that `bench/` measures."""

import re
from pathlib import Path

from bench.monitoring_queries import RECOMMENDED

GUIDE = Path(__file__).parents[2] / "docs/guides/monitoring.md"
ROW = re.compile(r"^\| .* \| `/(\w+)` \| `(.*)` \|$", re.MULTILINE)


def test_the_guide_recommends_what_is_measured() -> None:
    assert ROW.findall(GUIDE.read_text()) == [(query.resource, query.text) for query in RECOMMENDED]
