"""Durations as Go and so Kubernetes flags spell them: `15s`, `1m30s`, `250ms`, `1.5h`.  Pure."""

import re

_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")


def parse_duration(text: str) -> float:
    """Seconds.  Raises ValueError naming the text.  Source: Go's time.ParseDuration, without signs."""
    if text == "0":
        return 0.0
    seconds, end = 0.0, 0
    for part in _PART.finditer(text):
        if part.start() != end:
            break
        seconds += float(part[1]) * _UNITS[part[2]]
        end = part.end()
    if not text or end != len(text):
        raise ValueError(f'"{text}" is no duration: write 15s, 1m30s or 500ms')
    return seconds


def format_duration(seconds: float) -> str:
    """As Go prints it: `24h0m0s`, `1m30s`, `0s`, `250ms`.  Source: Go's Duration.String, down to milliseconds."""
    sign, milliseconds = ("-" if seconds < 0 else ""), round(abs(seconds) * 1000)
    if milliseconds and milliseconds < 1000:
        return f"{sign}{milliseconds}ms"
    minutes, rest = divmod(milliseconds, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{sign}{hours}h{minutes}m{text}"
    return f"{sign}{minutes}m{text}" if minutes else f"{sign}{text}"
