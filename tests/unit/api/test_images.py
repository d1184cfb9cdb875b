"""Tags of images, by which Pods get their pull policies."""

import pytest

from svcplane.api.strategies import images

SUM = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("image", "tag"),
    [
        ("a", "latest"),
        ("a/b", "latest"),
        ("host:5000/a/b", "latest"),
        ("Host/a", "latest"),
        ("localhost/a", "latest"),
        ("[::1]:5000/a", "latest"),
        ("a:1.2_x", "1.2_x"),
        ("host:5000/a:2", "2"),
        (f"a:latest@{SUM}", "latest"),
        (f"a@{SUM}", ""),
    ],
)
def test_tag(image: str, tag: str) -> None:
    assert images.tag(image) == tag


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Image",
        "a/B",
        "a b",
        "a:",
        "a:.",
        "a//b",
        "-a",
        "a@latest",
        "a:latest@sha256:" + "a" * 63,
        "a" * 249,
        "b" * 64,
    ],
)
def test_no_image_has_no_tag(text: str) -> None:
    assert images.tag(text) == ""
