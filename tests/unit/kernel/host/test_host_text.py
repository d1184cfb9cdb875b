"""Kernel files as facts."""

from svcplane.kernel.host import text
from svcplane.kernel.host.objects import HostLink, HostRoute

TCP = """  sl  local_address rem_address   st tx_queue rx_queue
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000
   1: 00000000:75A5 00000000:0000 0A 00000000:00000000
   2: 0B001EAC:0050 0C001EAC:C350 01 00000000:00000000
"""


def test_listening_ports_without_loopback_and_connections() -> None:
    assert list(text.listening(TCP, udp=False)) == [30117]


def test_capabilities() -> None:
    assert text.capabilities("Name:\tx\nCapEff:\t0000000000001000\n") == {"NET_ADMIN"}
    assert text.capabilities("") == frozenset()


def test_versions() -> None:
    assert text.version("nftables v1.0.6 (Lester Gooch #5)") == "1.0.6"
    assert text.version("what?") == "unknown"


def test_drops_of_all_cpus() -> None:
    assert text.dropped("entries insert_failed drop early_drop\n00 01 02 00\n00 00 0a 01\n") == 14
    assert text.dropped("") == 0


def test_links_and_routes() -> None:
    shown = {"ifname": "v", "mtu": 1450, "flags": ["UP"], "linkinfo": {"info_kind": "vxlan"}}
    address = {"local": "10.0.0.1", "prefixlen": 24}
    assert text.links([{**shown, "addr_info": [address]}]) == (HostLink("v", 1450, "vxlan", True, ("10.0.0.1/24",)),)
    routes = [{"dst": "default", "gateway": "192.0.2.1", "dev": "e"}, {"dst": "10.0.0.9", "dev": "v"}]
    assert text.routes(routes) == (HostRoute("default", "e", "192.0.2.1"), HostRoute("10.0.0.9/32", "v"))
