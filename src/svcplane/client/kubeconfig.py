"""Kubeconfig files -> where a server is and how to be let in.  Pure but for reading the files they name.

Source: k8s.io/client-go/tools/clientcmd.  Exec plug-ins and auth providers are refused with a clear error.
"""

import base64
import binascii
import os
import ssl
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from svcplane.base.errors import ConfigError

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """`ca`, `cert`, `key` are PEM texts; empty where not given."""

    server: str
    token: str = ""
    ca: str = ""
    cert: str = ""
    key: str = ""
    insecure: bool = False
    namespace: str = "default"

    def ssl_context(self) -> ssl.SSLContext | None:
        """None for plain http.  Raises ConfigError for unusable certificates."""
        if not self.server.startswith("https"):
            return None
        context = ssl.create_default_context(cadata=self.ca or None)
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


def load(path: str | Path, *, context: str = "", master: str = "") -> ClusterAccess:
    """Access by the current (or named) context of a file; `master` replaces the server's address.

    Raises ConfigError naming the file and the field.
    """
    file = Path(path)
    try:
        raw = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"--kubeconfig {file}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"--kubeconfig {file}: {' '.join(str(error).split())}") from error
    if not isinstance(raw, dict):
        raise ConfigError(f"--kubeconfig {file}: must be a kubeconfig document")
    name = context or raw.get("current-context", "")
    chosen = _named(raw, "contexts", name, "context", file)
    cluster = _named(raw, "clusters", chosen.get("cluster", ""), "cluster", file)
    user = _named(raw, "users", chosen["user"], "user", file) if chosen.get("user") else {}
    if "exec" in user or "auth-provider" in user:
        raise ConfigError(f"--kubeconfig {file}: users.{chosen['user']}: exec plug-ins are not supported; use a token")
    server = master or cluster.get("server", "")
    if not server:
        raise ConfigError(f"--kubeconfig {file}: clusters.{chosen.get('cluster')}.cluster.server: is empty")
    token = user.get("token", "") or (_text(file, user["tokenFile"]).strip() if user.get("tokenFile") else "")
    return ClusterAccess(
        server.rstrip("/"),
        token,
        _pem(file, cluster, "certificate-authority"),
        _pem(file, user, "client-certificate"),
        _pem(file, user, "client-key"),
        bool(cluster.get("insecure-skip-tls-verify")),
        chosen.get("namespace") or "default",
    )


def _named(raw: dict[str, Any], kind: str, name: str, field: str, file: Path) -> dict[str, Any]:
    for entry in raw.get(kind) or []:
        if entry.get("name") == name:
            return entry.get(field) or {}
    raise ConfigError(f"--kubeconfig {file}: {kind}: there is no {name!r}")


def _text(file: Path, name: str) -> str:
    path = file.parent / name
    try:
        return path.read_text()
    except OSError as error:
        raise ConfigError(f"--kubeconfig {file}: {path}: {error.strerror}") from error


def _pem(file: Path, entry: dict[str, Any], field: str) -> str:
    if entry.get(f"{field}-data"):
        try:
            return base64.b64decode(entry[f"{field}-data"]).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            raise ConfigError(f"--kubeconfig {file}: {field}-data: is no base64 of a PEM text") from error
    return _text(file, entry[field]) if entry.get(field) else ""


def in_cluster() -> ClusterAccess:
    """Access of a Pod by its service account.  Raises ConfigError outside a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    token = SERVICE_ACCOUNT / "token"
    if not host or not port or not token.exists():
        raise ConfigError("no --kubeconfig given, and this is no Pod with a service account")
    shown = f"[{host}]" if ":" in host else host
    ca = SERVICE_ACCOUNT / "ca.crt"
    return ClusterAccess(f"https://{shown}:{port}", token.read_text().strip(), ca.read_text() if ca.exists() else "")
