"""Kubeconfig files -> where a server is and how to be let in.  Pure but for reading the files they name.

Source: k8s.io/client-go/tools/clientcmd.  Exec plug-ins are run (`client.plugin`); auth providers, which client-go
has no more, are refused.
"""

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec
import yaml

from svcplane.base.errors import ConfigError
from svcplane.client.plugin import Credentials, Exec, Plugin

T = TypeVar("T")
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """`server`: a URL, or several of servers over one store, by commas.  `ca`, `cert`, `key` are PEM texts; empty
    where not given.  `token_file`: where the token comes from, and may be renewed; empty where it never changes.
    `plugin`: who gives other credentials once these have expired (`expires_at`, wall time) or are refused."""

    server: str
    token: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False
    namespace: str = "default"
    token_file: str = ""
    plugin: Plugin | None = None
    expires_at: float | None = None

    def given(self, credentials: Credentials) -> "ClusterAccess":
        """With what a plug-in gives in the place of what was there."""
        return replace(
            self,
            token=credentials.token or self.token,
            cert=credentials.cert or self.cert,
            key=credentials.key or self.key,
            expires_at=credentials.expires_at,
        )

    @property
    def servers(self) -> list[str]:
        return [url for part in self.server.split(",") if (url := part.strip().rstrip("/"))]

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for plain http.  Raises ConfigError for unusable certificates."""
        if not self.server.startswith("https"):
            return None
        try:
            context = ssl.create_default_context(cadata=self.ca or None)
        except (ssl.SSLError, ValueError) as error:
            raise ConfigError("kubeconfig: certificate-authority: is no PEM certificate") from error
        try:
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert:
                with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
                    file.write(f"{self.cert}\n{self.key}")
                    file.flush()
                    context.load_cert_chain(file.name)
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(f"kubeconfig: client certificate: {error}") from error
        return context


class _Cluster(msgspec.Struct, frozen=True, rename="kebab"):
    server: str | None = None
    certificate_authority: str | None = None
    certificate_authority_data: str | None = None
    insecure_skip_tls_verify: bool | None = None


class _User(msgspec.Struct, frozen=True, rename="kebab"):
    token: str | None = None
    token_file: str | None = msgspec.field(default=None, name="tokenFile")
    client_certificate: str | None = None
    client_certificate_data: str | None = None
    client_key: str | None = None
    client_key_data: str | None = None
    exec: Exec | None = None
    auth_provider: Any = None


class _Context(msgspec.Struct, frozen=True):
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None


class _NamedCluster(msgspec.Struct, frozen=True):
    name: str
    cluster: _Cluster | None = None


class _NamedUser(msgspec.Struct, frozen=True):
    name: str
    user: _User | None = None


class _NamedContext(msgspec.Struct, frozen=True):
    name: str
    context: _Context | None = None


class _Written(msgspec.Struct, frozen=True, rename="kebab"):
    """What is read of a kubeconfig document."""

    current_context: str | None = None
    contexts: list[_NamedContext] | None = None
    clusters: list[_NamedCluster] | None = None
    users: list[_NamedUser] | None = None


def load(path: str | Path, *, context: str = "", master: str = "") -> ClusterAccess:
    """Access by the current (or named) context; `master` replaces the server's address.

    `path`: a file, or several as in $KUBECONFIG, by colons.  Of several, those that are not there are passed over, and
    what more than one says counts as the first says it; a file that an entry names lies beside that entry's.
    Raises ConfigError naming the file and the field.
    """
    read = [(file, _read(file)) for file in _files(path)]
    name = context or next((raw.current_context for _, raw in read if raw.current_context), "")
    contexts = [(file, one.name, one.context) for file, raw in read for one in raw.contexts or ()]
    clusters = [(file, one.name, one.cluster) for file, raw in read for one in raw.clusters or ()]
    users = [(file, one.name, one.user) for file, raw in read for one in raw.users or ()]
    _, chosen = _first(path, "contexts", name, contexts, _Context())
    cluster_file, cluster = _first(path, "clusters", chosen.cluster or "", clusters, _Cluster())
    file, user = _first(path, "users", chosen.user, users, _User()) if chosen.user else (cluster_file, _User())
    if user.auth_provider is not None:
        raise ConfigError(f"--kubeconfig {file}: users.{chosen.user}: auth-provider is not supported; use exec")
    where = "--master" if master else f"--kubeconfig {cluster_file}: clusters.{chosen.cluster}.cluster.server"
    server = _server(master or cluster.server or "", where)
    access = ClusterAccess(
        server,
        user.token or (_text(file, user.token_file).strip() if user.token_file else ""),
        _pem(cluster_file, "certificate-authority", cluster.certificate_authority_data, cluster.certificate_authority),
        _pem(file, "client-certificate", user.client_certificate_data, user.client_certificate),
        _pem(file, "client-key", user.client_key_data, user.client_key),
        bool(cluster.insecure_skip_tls_verify),
        chosen.namespace or "default",
        str(file.parent / user.token_file) if user.token_file and not user.token else "",
    )
    return access if user.exec is None else _asked(access, user.exec, file, chosen.user or "")


def component_access(kubeconfig: str, master: str = "") -> ClusterAccess:
    """Access of a component: by its kubeconfig; without one to `master` without credentials; without either by the
    service account of its Pod.  Raises ConfigError.  Source: clientcmd.BuildConfigFromFlags.
    """
    if kubeconfig:
        return load(kubeconfig, master=master)
    return ClusterAccess(_server(master, "--master")) if master else in_cluster()


def _server(text: str, where: str) -> str:
    """Raises ConfigError."""
    server = text.rstrip("/")
    if not server:
        raise ConfigError(f"{where}: is empty")
    for url in server.split(","):
        _check_url(url.strip(), where)
    return server


def _asked(access: ClusterAccess, spec: Exec, file: Path, user: str) -> ClusterAccess:
    """With what the plug-in gives."""
    cluster: dict[str, Any] = {"server": access.server}
    if access.ca:
        cluster["certificate-authority-data"] = base64.b64encode(access.ca.encode()).decode()
    if access.insecure:
        cluster["insecure-skip-tls-verify"] = True
    plugin = Plugin(spec, f"--kubeconfig {file}: users.{user}.exec", file.parent, cluster)
    plugin.check()
    return replace(access, plugin=plugin).given(plugin.ask())


def _files(path: str | Path) -> list[Path]:
    """Of several at least one."""
    given = Path(path)
    several = [Path(part) for part in str(path).split(os.pathsep) if part]
    if len(several) < 2 or given.exists():
        return [given]
    return [file for file in several if file.exists()] or several[:1]


def _read(file: Path) -> _Written:
    try:
        return msgspec.convert(yaml.safe_load(file.read_text()), _Written)
    except OSError as error:
        raise ConfigError(f"--kubeconfig {file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--kubeconfig {file}: is no text") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"--kubeconfig {file}: {' '.join(str(error).split())}") from error
    except msgspec.ValidationError as error:
        raise ConfigError(f"--kubeconfig {file}: is no kubeconfig document: {error}") from error


def _check_url(url: str, where: str) -> None:
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("https", "http") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good:
        raise ConfigError(f"{where}: {url}: must be a URL such as https://192.0.2.1:6443")


def _first(
    path: str | Path, kind: str, name: str, entries: list[tuple[Path, str, T | None]], empty: T
) -> tuple[Path, T]:
    """The first entry of a name, and the file that has it."""
    for file, given, entry in entries:
        if given == name:
            return file, empty if entry is None else entry
    raise ConfigError(f"--kubeconfig {path}: {kind}: there is no {name!r}")


def _text(file: Path, name: str) -> str:
    path = file.parent / name
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"--kubeconfig {file}: {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--kubeconfig {file}: {path}: is no text") from error


def _pem(file: Path, field: str, data: str | None, name: str | None) -> str:
    if data:
        try:
            return base64.b64decode("".join(data.split()), validate=True).decode()
        except (binascii.Error, ValueError) as error:
            raise ConfigError(f"--kubeconfig {file}: {field}-data: is no base64 of a PEM text") from error
    return _text(file, name) if name else ""


def in_cluster() -> ClusterAccess:
    """Access of a Pod by its service account.  Raises ConfigError outside a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    token = SERVICE_ACCOUNT / "token"
    if not host or not port or not token.exists():
        raise ConfigError("no --kubeconfig given, and this is no Pod with a service account")
    shown = f"[{host}]" if ":" in host else host
    ca = SERVICE_ACCOUNT / "ca.crt"
    authority = ca.read_text() if ca.exists() else ""
    return ClusterAccess(f"https://{shown}:{port}", token.read_text().strip(), authority, token_file=str(token))
