"""The row that is shown of an event."""

from typing import Any

import pytest

from svcplane.api.resources import EVENTS
from svcplane.api.tables import row

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
TARGET = {"kind": "Service", "name": "web"}


@pytest.mark.parametrize(
    ("event", "seen", "source", "count"),
    [
        (
            {"firstTimestamp": "2025-12-31T23:00:00Z", "lastTimestamp": "2025-12-31T23:59:50Z", "count": 3},
            ("10s", "60m"),
            "",
            3,
        ),
        (
            {"eventTime": "2025-12-31T23:59:00.000000Z", "reportingComponent": "c", "reportingInstance": "c-1"},
            ("60s", "60s"),
            "c, c-1",
            1,
        ),
        (
            {
                "eventTime": "2025-12-31T23:59:00.000000Z",
                "source": {"component": "kubelet", "host": "n1"},
                "series": {"count": 7, "lastObservedTime": "2025-12-31T23:59:55.000000Z"},
            },
            ("5s", "60s"),
            "kubelet, n1",
            7,
        ),
        ({}, ("<unknown>", "<unknown>"), "", 1),
    ],
)
def test_times_and_counts(event: dict[str, Any], seen: tuple[str, str], source: str, count: int) -> None:
    obj = {"metadata": {"name": "e"}, "involvedObject": TARGET, "message": " up ", "reason": "Up", **event}
    cells = row(EVENTS, obj, "None", NOW)["cells"]
    assert cells == [seen[0], "", "Up", "service/web", "", source, "up", seen[1], count, "e"]
