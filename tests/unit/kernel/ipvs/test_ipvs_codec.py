"""IPVS messages, and the table of connections as the kernel prints it."""

import pytest

from svcplane.kernel.ipvs import codec
from svcplane.kernel.ipvs import objects as o

TABLE = """Pro FromIP   FPrt ToIP     TPrt DestIP   DPrt State       Expires PEName PEData
TCP AC1E0064 0000 0A60080A 0050 0AF4010B 1F90 NONE             99
TCP AC1E0064 D431 0A60080A 0050 0AF4010B 1F90 ESTABLISHED     899
UDP [fd30:0000:0000:0000:0000:0000:0000:0064] 8001 [fd00:0010:0096:0000:0000:0000:0000:000a] 0035 \
[fd00:0010:0244:0001:0000:0000:0000:0011] 1F90 UDP             299
"""


@pytest.mark.parametrize(
    "key", [o.ServerKey("tcp", "10.96.0.10", 80), o.ServerKey("sctp", "fd00:10:96::a", 65535)], ids=str
)
@pytest.mark.parametrize(
    "server", [o.Server(), o.Server("wlc", 10800), o.Server("sh", 86400, 24, o.FALLBACK | o.BY_PORT)]
)
def test_a_server_is_read_as_it_was_written(key: o.ServerKey, server: o.Server) -> None:
    assert codec.decode_server(codec.encode(o.AddServer(key, server))) == (key, server)


def test_the_table_of_connections() -> None:
    template, connection, six = codec.parse_connections(TABLE)
    assert template == o.Connection("tcp", "172.30.0.100", 0, ("10.96.8.10", 80), ("10.244.1.11", 8080), "NONE", 99)
    assert (template.is_template, connection.is_template, connection.client_port) == (True, False, 54321)
    assert (six.client, six.server, six.target) == ("fd30::64", ("fd00:10:96::a", 53), ("fd00:10:244:1::11", 8080))


def test_a_refusal_names_what_and_why() -> None:
    change = o.EditServer(o.ServerKey("tcp", "fd00::1", 80), o.Server("lblcr"))
    assert str(codec.describe(change, 2)) == (
        "IPVS did not change virtual server tcp [fd00::1]:80: this kernel has no scheduler lblcr (module ip_vs_lblcr)"
    )
    assert str(codec.describe(o.DeleteServer(change.key), 3)).endswith("tcp [fd00::1]:80: No such process")
