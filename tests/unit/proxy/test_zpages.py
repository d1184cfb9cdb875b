"""The pages for people."""

from svcplane.proxy.zpages import flagz, statusz


def test_statusz_tells_since_when_and_where_to_look() -> None:
    lines = statusz(0.0, 3661.0, ("/configz", "/metrics")).decode().splitlines()
    assert lines[0] == "svcplane proxy statusz"
    assert "Started: 1970-01-01T00:00:00Z" in lines
    assert "Up: 1h1m1s" in lines
    assert "Paths: /configz /metrics" in lines


def test_flagz_has_a_line_for_each_flag() -> None:
    assert flagz({"v": "2", "proxy-mode": "ipvs"}).decode().splitlines()[3:] == ["proxy-mode=ipvs", "v=2"]
