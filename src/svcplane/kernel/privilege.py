"""What this process may do."""

from pathlib import Path

CAP_NET_ADMIN = 12


def may_administer_network(status: Path = Path("/proc/self/status")) -> bool:
    """Whether it has CAP_NET_ADMIN in its user namespace."""
    for line in status.read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> CAP_NET_ADMIN & 1)
    return False
