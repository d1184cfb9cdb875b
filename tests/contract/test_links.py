"""One contract for the fake links and the kernel's."""

import os
from collections.abc import Iterator

import pytest

from svcplane.base.errors import KernelError
from svcplane.kernel.links.fake import FakeLinks
from svcplane.kernel.links.objects import (
    DEFAULT,
    AddLink,
    AddNamespace,
    Address,
    Bridge,
    DeleteLink,
    Links,
    NetworkSpace,
    Observed,
    Operation,
    Route,
    SetUp,
    Veth,
)
from svcplane.kernel.links.plan import plan, removal, stray_links
from svcplane.kernel.links.run import KernelLinks

PREFIX = f"svk{os.getpid()}-"
A, B = PREFIX + "a", PREFIX + "b"
REAL = pytest.param("kernel", marks=[pytest.mark.root, pytest.mark.tools("ip")])


@pytest.fixture(params=["fake", REAL])
def links(request: pytest.FixtureRequest) -> Iterator[Links]:
    made: Links = KernelLinks() if request.param == "kernel" else FakeLinks()
    yield made
    made.apply(removal(PREFIX, made.namespaces(PREFIX)))
    assert made.namespaces(PREFIX) == []


DESIRED = [
    NetworkSpace(
        A,
        links=(Veth("v0", "eth0", B, "mark one", master="br0"), Bridge("br0", "mark two")),
        addresses=(Address("br0", "10.9.0.1/24"), Address("br0", "fd09::1/64")),
        sysctls={"ipv4/ip_forward": "1"},
    ),
    NetworkSpace(
        B,
        up=("eth0",),
        addresses=(Address("eth0", "10.9.0.2/24"), Address("eth0", "fd09::2/64")),
        routes=(Route.to(DEFAULT, "eth0", via="10.9.0.1"), Route.to("10.8.0.0/16", "eth0", via="10.9.0.1")),
    ),
]


def observe(links: Links) -> dict[str, Observed | None]:
    return {space.name: links.observe(space.name, space.sysctls) for space in DESIRED}


def make(links: Links) -> None:
    links.apply(plan(DESIRED, observe(links)))


def test_plan_on_nothing_makes_what_is_desired(links: Links) -> None:
    make(links)
    seen = observe(links)[A]
    assert seen is not None
    assert seen.links["v0"].alias == "mark one"
    assert seen.links["v0"].master == "br0"
    assert Address("br0", "fd09::1/64") in seen.addresses
    assert seen.sysctls == {"ipv4/ip_forward": "1"}


def test_planning_again_yields_nothing(links: Links) -> None:
    make(links)
    assert plan(DESIRED, observe(links)) == []


def test_absent_namespace_is_observed_as_none(links: Links) -> None:
    assert links.observe(A) is None


def test_lost_link_is_made_again_with_its_addresses(links: Links) -> None:
    make(links)
    links.apply([DeleteLink(A, "v0")])
    far = observe(links)[B]
    assert far is not None
    assert "eth0" not in far.links, "both ends of a veth go together"
    make(links)
    assert plan(DESIRED, observe(links)) == []


def test_only_links_with_the_mark_are_strays(links: Links) -> None:
    make(links)
    seen = observe(links)[A]
    assert seen is not None
    assert stray_links(A, seen, "mark one") == [DeleteLink(A, "v0")]
    assert stray_links(A, seen, "mark", keep=["v0"]) == [DeleteLink(A, "br0")]
    assert stray_links(A, seen, "other") == []


def test_removal_takes_namespaces_of_the_prefix_but_the_kept(links: Links) -> None:
    make(links)
    links.apply(removal(PREFIX, links.namespaces(PREFIX), keep=[B]))
    assert links.namespaces(PREFIX) == [B]


@pytest.mark.parametrize(
    "operation",
    [SetUp(A, "none"), AddNamespace(A), AddLink(A, Bridge("br0", "x"))],
    ids=["absent device", "namespace that is there", "link that is there"],
)
def test_operation_the_kernel_refuses_is_a_kernel_error(links: Links, operation: Operation) -> None:
    links.apply([AddNamespace(A), AddLink(A, Bridge("br0", "x"))])
    with pytest.raises(KernelError):
        links.apply([operation])
