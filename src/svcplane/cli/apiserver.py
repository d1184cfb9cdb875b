"""`svcplane apiserver`: the API server alone.  Flags as kube-apiserver's where it has them."""

import asyncio
import logging
import signal
import sys
from pathlib import Path

import click

from svcplane.base.errors import ConfigError
from svcplane.base.memory import expect_growth, settle
from svcplane.cli.console import mount_console
from svcplane.cli.controllers import Duration
from svcplane.cli.main import configure_logging

log = logging.getLogger("svcplane.apiserver")


@click.command(short_help="Run the Kubernetes-compatible API server.")
@click.option("--bind-address", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--advertise-address", default="", help="Address under which nodes reach this server.")
@click.option("--secure-port", default=6443, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--data-dir", default="/var/lib/svcplane", show_default=True, type=click.Path(path_type=Path))
@click.option("--etcd-servers", default="", help="URLs of an etcd v3, by commas; objects are kept there then.")
@click.option("--etcd-prefix", default="/registry", show_default=True, help="Where objects are in etcd.")
@click.option("--etcd-cafile", type=click.Path(path_type=Path), help="Authority of etcd's certificate.")
@click.option("--etcd-certfile", type=click.Path(path_type=Path), help="Client certificate for etcd.")
@click.option("--etcd-keyfile", type=click.Path(path_type=Path), help="Its key.")
@click.option(
    "--etcd-compaction-interval",
    default="5m",
    show_default=True,
    type=Duration(),
    help="History that etcd keeps at least; 0: never compact.",
)
@click.option("--token-auth-file", type=click.Path(path_type=Path), help='CSV: token,user,uid,"group1,group2".')
@click.option(
    "--authorization-role-file", type=click.Path(path_type=Path), help="YAML rules; system:masters may do all."
)
@click.option(
    "--service-cluster-ip-range", default="10.96.0.0/16", show_default=True, help="One CIDR, or one a family."
)
@click.option("--service-node-port-range", default="30000-32767", show_default=True)
@click.option("--tls-cert-file", type=click.Path(path_type=Path))
@click.option("--tls-private-key-file", type=click.Path(path_type=Path))
@click.option("--client-ca-file", type=click.Path(path_type=Path), help="Accept client certificates of this authority.")
@click.option("--max-requests-inflight", default=400, show_default=True, type=click.IntRange(1))
@click.option(
    "--event-ttl",
    default="1h",
    show_default=True,
    type=Duration(),
    help="How long Events are kept after their last write; 0: for ever.",
)
@click.option("--audit-log-path", type=click.Path(path_type=Path), help="A line for each write; `-`: standard output.")
@click.option("-v", "--v", "verbosity", default=2, show_default=True, type=int, help="Log verbosity.")
def apiserver(
    bind_address: str,
    advertise_address: str,
    secure_port: int,
    data_dir: Path,
    etcd_servers: str,
    etcd_prefix: str,
    etcd_cafile: Path | None,
    etcd_certfile: Path | None,
    etcd_keyfile: Path | None,
    etcd_compaction_interval: float,
    token_auth_file: Path | None,
    authorization_role_file: Path | None,
    service_cluster_ip_range: str,
    service_node_port_range: str,
    tls_cert_file: Path | None,
    tls_private_key_file: Path | None,
    client_ca_file: Path | None,
    max_requests_inflight: int,
    event_ttl: float,
    audit_log_path: Path | None,
    verbosity: int,
) -> None:
    """Run the API server until it is told to stop.  Writes DATA_DIR/kubeconfig for its administrator."""
    from svcplane.base.descriptors import allow_many
    from svcplane.server.app import ApiServerConfig
    from svcplane.store.etcd import EtcdAccess

    configure_logging(verbosity)
    allow_many()
    if audit_log_path is not None:
        _audit_to(audit_log_path)
    config = ApiServerConfig(
        data_dir=data_dir,
        bind_address=bind_address,
        advertise_address=advertise_address,
        secure_port=secure_port,
        service_cidrs=tuple(part.strip() for part in service_cluster_ip_range.split(",") if part.strip()),
        node_ports=service_node_port_range,
        token_auth_file=token_auth_file,
        role_file=authorization_role_file,
        tls_cert_file=tls_cert_file,
        tls_key_file=tls_private_key_file,
        client_ca_file=client_ca_file,
        max_in_flight=max_requests_inflight,
        event_ttl_s=event_ttl,
        etcd=EtcdAccess.parse(etcd_servers, etcd_cafile, etcd_certfile, etcd_keyfile) if etcd_servers else None,
        etcd_prefix="/" + etcd_prefix.strip("/"),
        etcd_compact_s=etcd_compaction_interval,
    )
    import uvloop

    uvloop.run(_serve(config))


def _audit_to(path: Path) -> None:
    """Send the audit lines there instead of to the log."""
    try:
        handler = logging.StreamHandler(sys.stdout) if str(path) == "-" else logging.FileHandler(path)
    except OSError as error:
        raise ConfigError(f"--audit-log-path {path}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    audit = logging.getLogger("svcplane.audit")
    audit.addHandler(handler)
    audit.setLevel(logging.INFO)
    audit.propagate = False


async def _serve(config: object) -> None:
    from svcplane.server.app import ApiServer, ApiServerConfig

    assert isinstance(config, ApiServerConfig)
    expect_growth()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with ApiServer(config) as server:
        mount_console(server)
        settle()
        log.info("serving: url=%s data_dir=%s", server.url, config.data_dir)
        await stopped.wait()
        log.info("stopping")
