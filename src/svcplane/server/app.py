"""One API server put together: store, registry, handler, listener.

`async with ApiServer(config) as server` gives `server.handle` for callers in the same process and, where a
port is configured, `server.url` for others.
"""

import asyncio
import logging
import random
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import yaml

from svcplane.api.http import Handler, User
from svcplane.api.strategies import STRATEGIES
from svcplane.base.clock import SYSTEM_CLOCK, Clock
from svcplane.base.errors import ConfigError
from svcplane.base.net import join_host_port
from svcplane.base.tasks import cancel_and_wait
from svcplane.server.allocation import ServiceAllocation
from svcplane.server.allocators import AddressRange, PortRange
from svcplane.server.auth import MASTERS, Authorizer, parse_rules, parse_tokens
from svcplane.server.binding import Binder
from svcplane.server.bootstrap import Bootstrap
from svcplane.server.certificates import Authority, server_context
from svcplane.server.deleting import Deleter
from svcplane.server.event_expiry import TTL_S as EVENT_TTL_S
from svcplane.server.event_expiry import EventExpiry
from svcplane.server.events import Events
from svcplane.server.handler import ApiHandler
from svcplane.server.http import HttpServer
from svcplane.server.members import Members
from svcplane.server.metrics import MeasuredStore, Metrics
from svcplane.server.nodelogs import NodeLogs, node_context
from svcplane.server.patching import Patcher
from svcplane.server.reading import Reader
from svcplane.server.repair import Repair
from svcplane.server.reviews import Reviews
from svcplane.server.writing import Writer
from svcplane.store.contract import Store
from svcplane.store.etcd import COMPACT_EVERY_S, EtcdAccess, EtcdStore
from svcplane.store.sqlite import SqliteStore

log = logging.getLogger(__name__)
audit_log = logging.getLogger("svcplane.audit")


@dataclass(frozen=True, slots=True)
class ApiServerConfig:
    """`secure_port` None: no listener (in-process only); 0: any free port.  `data_dir` None needs a store.
    With `etcd` objects are there and not in the data directory, which keeps the token and certificates."""

    data_dir: Path | None = None
    bind_address: str = "127.0.0.1"
    advertise_address: str = ""
    secure_port: int | None = 6443
    service_cidrs: tuple[str, ...] = ("10.96.0.0/16",)
    node_ports: str = "30000-32767"
    token_auth_file: Path | None = None
    role_file: Path | None = None
    tls_cert_file: Path | None = None
    tls_key_file: Path | None = None
    client_ca_file: Path | None = None
    max_in_flight: int = 400
    event_ttl_s: float = EVENT_TTL_S
    etcd: EtcdAccess | None = None
    etcd_prefix: str = "/registry"
    etcd_compact_s: float = COMPACT_EVERY_S
    audit: Callable[[str], None] | None = field(default=audit_log.info)


def _read(path: Path, flag: str) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"{flag} {path}: {error.strerror}") from error


def _of_family(addresses: Sequence[str], example: str) -> list[str]:
    return [address for address in addresses if (":" in address) == (":" in example)]


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise ConfigError(f"--data-dir {path}: {error.strerror}") from error


class ApiServer:
    """See the module's text."""

    def __init__(self, config: ApiServerConfig, store: Store | None = None, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.config, self._store, self._clock = config, store, clock
        self._owns_store = store is None
        self.metrics = Metrics()
        self._allocation: ServiceAllocation | None = None
        self._members: Members | None = None
        self._repair: asyncio.Task[None] | None = None
        self._event_expiry: asyncio.Task[None] | None = None
        self._http: HttpServer | None = None
        self._handler: ApiHandler | None = None
        self._node_logs: NodeLogs | None = None
        self._authority: Authority | None = None
        self.token = ""
        self.ca_file: Path | None = None

    async def __aenter__(self) -> "ApiServer":
        try:
            await self._start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    @property
    def handle(self) -> Handler:
        assert self._handler is not None, "the server has not been started"
        return self._handler

    def mount(self, prefix: str, handler: Handler) -> None:
        """Let `handler` answer paths that begin with `prefix` (`/console`); it decides who may ask."""
        assert self._handler is not None, "the server has not been started"
        self._handler.mounted[prefix] = handler

    @property
    def authority(self) -> Authority | None:
        """The cluster's authority; None where the certificates are not the server's own."""
        return self._authority

    @property
    def port(self) -> int:
        return self._http.port if self._http else 0

    @property
    def url(self) -> str:
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.config.bind_address, self.config.bind_address)
        return f"https://{join_host_port(host, self.port)}"

    async def _start(self) -> None:
        config = self.config
        ranges = [AddressRange.parse(cidr) for cidr in config.service_cidrs]
        if not ranges or len(ranges) > 2 or len({span.family for span in ranges}) != len(ranges):
            raise ConfigError("--service-cluster-ip-range: must be one CIDR, or one of each IP family")
        ports = PortRange.parse(config.node_ports)
        authorizer = Authorizer(
            parse_rules(_read(config.role_file, "--authorization-role-file"), str(config.role_file))
            if config.role_file
            else ()
        )
        if self._store is None:
            self._store = await self._open_store()
        store = MeasuredStore(self._store, self.metrics)
        tokens = self._tokens()
        fresh = await self._store.revision() == 1
        chooser = random.Random(secrets.randbits(256))
        self._allocation = ServiceAllocation(store, ranges, ports, random=chooser, clock=self._clock)
        await self._allocation.start()
        reader = Reader(store, STRATEGIES, self._clock, self.metrics.watched)
        deleter = Deleter(store, STRATEGIES, self._allocation, clock=self._clock)
        writer = Writer(store, STRATEGIES, self._allocation, deleter, clock=self._clock, random=chooser)
        self._handler = ApiHandler(
            reader,
            writer,
            Patcher(store, writer),
            deleter,
            Binder(store, self._clock),
            authorizer,
            Reviews(authorizer, tokens),
            self.metrics,
            address=config.bind_address,
            audit=config.audit,
            max_in_flight=config.max_in_flight,
        )
        if config.secure_port is not None:
            await self._listen(tokens, ranges[0].first)
        advertise = config.advertise_address or self._advertised()
        port = self.port or 6443
        bootstrap = Bootstrap(self._handler)
        service_ip = ranges[0].first
        await bootstrap.run(list(config.service_cidrs), service_ip, port)
        self._members = Members(
            self._store,
            advertise,
            lambda addresses: bootstrap.keep(service_ip, _of_family(addresses, advertise), port),
            self._clock,
            alone=config.etcd is None,
        )
        await self._members.join()
        repair = Repair(self._store, self._allocation, Events(self._handler, self._clock), self._clock)
        self._repair = asyncio.create_task(repair.run(), name="repair")
        if config.event_ttl_s:
            expiry = EventExpiry(self._store, self._clock, config.event_ttl_s)
            self._event_expiry = asyncio.create_task(expiry.run(), name="expiry of Events")
        if fresh:
            # what the cluster began with is no history that anybody could resume from
            await self._store.compact(await self._store.revision())
        if config.data_dir is not None and self._http is not None:
            self._write_kubeconfig(config.data_dir)

    async def _open_store(self) -> Store:
        config = self.config
        if config.etcd is not None:
            if config.data_dir is not None:
                _make_directory(config.data_dir)
            return await EtcdStore.open(
                config.etcd, prefix=config.etcd_prefix, clock=self._clock, compact_every_s=config.etcd_compact_s
            )
        if config.data_dir is None:
            raise ConfigError("--data-dir is needed")
        return await SqliteStore.open(config.data_dir)

    def _advertised(self) -> str:
        bind = self.config.bind_address
        return "10.0.0.1" if bind in ("0.0.0.0", "127.0.0.1", "::1", "::", "localhost") else bind

    def _tokens(self) -> dict[str, User]:
        """Tokens of the file; without one, an administrator's of our own, kept in the data directory."""
        config = self.config
        if config.token_auth_file is not None:
            tokens = parse_tokens(_read(config.token_auth_file, "--token-auth-file"), str(config.token_auth_file))
            self.token = next((token for token, user in tokens.items() if MASTERS in user.groups), "")
            return tokens
        path = config.data_dir / "admin.token" if config.data_dir else None
        if path is not None and path.exists():
            self.token = path.read_text().strip()
        else:
            self.token = secrets.token_urlsafe(32)
            if path is not None:
                path.touch(mode=0o600)
                path.write_text(self.token + "\n")
        return {self.token: User("admin", frozenset({MASTERS, "system:authenticated"}))}

    async def _listen(self, tokens: dict[str, User], service_ip: str) -> None:
        config = self.config
        cert, key = config.tls_cert_file, config.tls_key_file
        if (cert is None) != (key is None):
            raise ConfigError("--tls-cert-file and --tls-private-key-file go together")
        if cert is None or key is None:
            if config.data_dir is None:
                raise ConfigError("--data-dir is needed for the server's own certificate")
            authority = self._authority = Authority(config.data_dir / "pki")
            hosts = ["localhost", "127.0.0.1", "::1", "kubernetes", "kubernetes.default", service_ip]
            hosts += [
                host for host in (config.bind_address, config.advertise_address) if host not in ("", "0.0.0.0", "::")
            ]
            cert, key = authority.apiserver(hosts)
            self.ca_file = authority.ca_path
            assert self._handler is not None
            self._node_logs = self._handler.pod_logs = NodeLogs(self._handler, node_context(authority))
            self._handler.node_proxy = self._node_logs.proxy
        context = server_context(cert, key, config.client_ca_file)
        assert self._handler is not None
        self._http = HttpServer(self._handler, tokens)
        assert config.secure_port is not None
        await self._http.start(config.bind_address, config.secure_port, context)

    def kubeconfig(self, server: str = "") -> str:
        """A kubeconfig for the administrator."""
        cluster: dict[str, object] = {"server": server or self.url}
        if self.ca_file is not None:
            cluster["certificate-authority"] = str(self.ca_file.resolve())
        else:
            cluster["insecure-skip-tls-verify"] = True
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "svcplane", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self.token}}],
            "contexts": [{"name": "svcplane", "context": {"cluster": "svcplane", "user": "admin"}}],
            "current-context": "svcplane",
        }
        return yaml.safe_dump(document, sort_keys=False)

    def _write_kubeconfig(self, directory: Path) -> None:
        if not self.token:
            return
        path = directory / "kubeconfig"
        partial = directory / "kubeconfig.partial"
        partial.touch(mode=0o600)
        partial.write_text(self.kubeconfig())
        # whoever waits for the file finds it whole
        partial.replace(path)

    async def close(self) -> None:
        if self._node_logs is not None:
            await self._node_logs.close()
        if self._http is not None:
            await self._http.stop()
        await cancel_and_wait(self._repair)
        await cancel_and_wait(self._event_expiry)
        if self._members is not None:
            await self._members.leave()
        if self._allocation is not None:
            await self._allocation.close()
        if self._store is not None and self._owns_store:
            await self._store.close()
            self._store = None
