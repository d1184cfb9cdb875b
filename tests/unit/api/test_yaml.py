"""YAML bodies: read as Kubernetes reads them, whatever is in them."""

from typing import Any

import pytest

from svcplane.api.yaml import MAX_BYTES, MAX_DEPTH, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b"a: 2026-01-01\nb: 2026-01-01T00:00:00Z", {"a": "2026-01-01", "b": "2026-01-01T00:00:00Z"}),
        (b"[12:30, 1e2, 8e+1, 080, 010, 0x1F, 1_000, .5, 1., -3]", ["12:30", 100, 80, 80, 8, 31, 1000, 0.5, 1, -3]),
        (b"{2: a, true: b, null: c, 1.5: d}", {"2": "a", "true": "b", "null": "c", "1.5": "d"}),
        (b"a: &x {b: 1}\nc: *x\nd: {<<: *x, e: 2}", {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 1, "e": 2}}),
        (b'{"kind": "Service"}', {"kind": "Service"}),
        (b"{kind: Service}", {"kind": "Service"}),
        (b"", None),
    ],
)
def test_values(text: bytes, value: Any) -> None:
    assert parse(text) == value


def laughs(levels: int) -> bytes:
    lines = ['a0: &a0 ["x","x","x","x","x","x","x","x","x"]']
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join(lines).encode()


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (laughs(9), "excessive aliasing"),
        (b"a: &a [*a]", "too deeply"),
        (b"a: " + b"x" * MAX_BYTES, "send it as JSON"),
        (b"[" * 100_000, "too deeply"),
        (b"- " * 100_000, "too deeply"),
        (b"a: " + b"{a: " * 50_000 + b"}" * 50_000, "too deeply"),
        (b"\n".join(b" " * n + b"a:" for n in range(2 * MAX_DEPTH)), "too deeply"),
        (b"a: !!binary aGVsbG8=", "kind bytes"),
        (b"? [1, 2]\n: 3", "."),
        (b"a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        (b"\xff\xfe\x00", "."),
        (b"a: 0x_", "."),
        (b"a: 1\nb: [", "."),
    ],
)
def test_refused(text: bytes, why: str) -> None:
    """Some of these end a process that is not careful, or take all its memory."""
    with pytest.raises(ValueError, match=why):
        parse(text)
