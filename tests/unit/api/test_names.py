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


def test_keys_of_labels() -> None:
    assert names.qualified_name("a" * 254 + "/b") == ["prefix part must be no more than 253 bytes"]
    assert [text.partition(" (")[0] for text in names.qualified_name("/")] == [
        "prefix part must be non-empty",
        "name part must be non-empty",
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character",
    ]
    assert names.qualified_name("a/b/c") == [
        "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
        "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. "
        "'example.com/MyName')"
    ]
