"""`svcplane certificate`: what a node on another host needs so that its Pods' logs can be read."""

import os
from pathlib import Path

import click

from svcplane.base.errors import ConfigError
from svcplane.cli.node import node_ips

DIRECTORY = click.Path(path_type=Path, file_okay=False)


@click.command(short_help="Issue a node's serving certificate by the cluster's authority.")
@click.argument("node")
@click.option("--node-ip", required=True, help="The node's addresses, separated by commas.")
@click.option("--data-dir", default="/var/lib/svcplane", show_default=True, type=DIRECTORY, help="The API server's.")
@click.option("--out", default=".", show_default=True, type=DIRECTORY, help="Where NODE.crt, NODE.key go.")
def certificate(node: str, node_ip: str, data_dir: Path, out: Path) -> None:
    """Write NODE.crt and NODE.key, for `svcplane node --tls-cert-file --tls-private-key-file` on that host."""
    from svcplane.server.certificates import Authority

    ips = node_ips(node_ip)
    if "/" in node or not node or node.startswith("."):
        raise ConfigError(f"{node!r} is no name of a node")
    if not (data_dir / "pki" / "ca.key").exists():
        raise ConfigError(f"--data-dir {data_dir}: holds no authority; name the API server's data directory")
    pair = Authority(data_dir / "pki").node(node, [node, *ips])
    try:
        out.mkdir(parents=True, exist_ok=True)
        for source, target, mode in ((pair.cert, f"{node}.crt", 0o644), (pair.key, f"{node}.key", 0o600)):
            descriptor = os.open(out / target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(source.read_bytes())
    except OSError as error:
        raise ConfigError(f"--out {out}: {error.strerror}") from error
    click.echo(f"wrote {out / node}.crt and {out / node}.key")
