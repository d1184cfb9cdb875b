"""Back up and check an etcd from outside.  Restoring needs etcd stopped, and is etcd's own tool's work."""

import base64
import os
from pathlib import Path

from svcplane.base.errors import StoreError
from svcplane.store.etcd.gateway import EtcdAccess, Gateway
from svcplane.store.etcd.wire import number

RESTORE = (
    "svcplane does not restore into etcd, which must be stopped for it: on each member run "
    "`etcdctl snapshot restore FILE --data-dir NEW-DIR` (Debian's etcd-client) with the member's --name, "
    "--initial-cluster and --initial-advertise-peer-urls, then start etcd on NEW-DIR"
)


async def backup(access: EtcdAccess, target: Path) -> None:
    """etcd's own snapshot of all its keys, into a new file.  Raises StoreError."""
    if target.exists():
        raise StoreError(f"{target} exists already; a back-up never overwrites")
    partial = target.with_name(target.name + ".partial")
    gateway = Gateway(access)
    remaining = -1
    try:
        await gateway.revision()  # moves on to a server that answers
        with open(partial, "wb") as file:
            async for result in gateway.stream("/v3/maintenance/snapshot", {}):
                file.write(base64.b64decode(result.get("blob", "")))
                remaining = number(result, "remaining_bytes")
            file.flush()
            os.fsync(file.fileno())
        if remaining != 0:
            raise StoreError(f"etcd {gateway.server}: the snapshot broke off")
        os.replace(partial, target)
    except OSError as error:
        raise StoreError(f"{target}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)
        await gateway.close()


async def check(access: EtcdAccess) -> list[str]:
    """What is wrong: servers that do not answer or lag, raised alarms.  Empty where nothing is."""
    problems: list[str] = []
    for server in access.servers:
        gateway = Gateway(EtcdAccess((server,), access.ca_file, access.cert_file, access.key_file))
        try:
            status = await gateway.call("/v3/maintenance/status", {})
            problems += [f"etcd {server}: {error}" for error in status.get("errors", [])]
            if not number(status, "leader"):
                problems.append(f"etcd {server}: has no leader")
            alarms = (await gateway.call("/v3/maintenance/alarm", {"action": "GET"})).get("alarms", [])
            problems += [f"etcd {server}: alarm {alarm.get('alarm')}" for alarm in alarms]
            await gateway.revision()
        except StoreError as error:
            problems.append(str(error))
        finally:
            await gateway.close()
    return list(dict.fromkeys(problems))
