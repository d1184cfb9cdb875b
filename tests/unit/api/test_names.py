"""What is wrong with names."""

from collections.abc import Callable

import pytest

from svcplane.api.validation import names


@pytest.mark.parametrize(
    ("rule", "text", "begin"),
    [
        (names.dns1123_label, "é" * 32, "must be no more than 63 characters"),
        (names.dns1123_subdomain, "é" * 127, "must be no more than 253 characters"),
        (names.port_name, "é" * 8, "must be no more than 15 characters"),
        (names.qualified_name, "é" * 32, "name part must be no more than 63 bytes"),
        (names.label_value, "é" * 32, "must be no more than 63 bytes"),
    ],
)
def test_lengths_are_of_bytes(rule: Callable[[str], list[str]], text: str, begin: str) -> None:
    assert rule(text)[0] == begin
    assert rule(text[1:])[0] != begin
