"""What is particular to etcd: several stores over one, its restarts, its limits, its compaction, TLS."""

import asyncio
import base64
import ipaddress
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from svcplane.base.errors import ConfigError, StoreError
from svcplane.store.contract import (
    Compacted,
    Event,
    PreconditionFailed,
    Put,
    Revision,
    Transaction,
    Unchanged,
    Watch,
)
from svcplane.store.etcd import EtcdAccess, EtcdStore
from svcplane.testing.etcd import Etcd, free_port

pytestmark = pytest.mark.tools("etcd")


@asynccontextmanager
async def opened(*urls: str, **options: object) -> AsyncIterator[EtcdStore]:
    store = await EtcdStore.open(EtcdAccess(urls), **options)  # type: ignore[arg-type]
    try:
        yield store
    finally:
        await store.close()


async def put(store: EtcdStore, key: str, value: bytes) -> Revision:
    return await store.commit(Transaction((Put(key, value),)))


async def take(watch: Watch, count: int) -> Sequence[Event]:
    found: list[Event] = []
    async with asyncio.timeout(10):
        async for events in watch:
            found += events
            if len(found) >= count:
                break
    return found


def call_etcd(etcd: Etcd, path: str, body: dict[str, object]) -> dict[str, object]:
    """As another program of the same etcd would."""
    with urllib.request.urlopen(etcd.url + path, data=json.dumps(body).encode(), timeout=5) as answer:
        decoded: dict[str, object] = json.loads(answer.read())
        return decoded


async def test_keys_lie_below_the_prefix_as_in_kube_apiserver(etcd: Etcd) -> None:
    async with opened(etcd.url, prefix="/elsewhere") as store:
        await put(store, "/registry/services/default/web", b"{}")
        with pytest.raises(StoreError, match="outside"):
            await put(store, "/other", b"")
    key = base64.b64encode(b"/elsewhere/services/default/web").decode()
    assert call_etcd(etcd, "/v3/kv/range", {"key": key})["count"] == "1"


async def test_two_stores_see_each_others_commits_at_once(etcd: Etcd) -> None:
    async with opened(etcd.url) as one, opened(etcd.url) as other:
        for number in range(50):
            revision = await put(one, "/registry/a", b"%d" % number)
            item = await other.get("/registry/a")
            assert item is not None
            assert (item.value, item.revision) == (b"%d" % number, revision)


async def test_one_of_two_stores_wins_each_creation(etcd: Etcd) -> None:
    async with opened(etcd.url) as one, opened(etcd.url) as other:
        wins = {one: 0, other: 0}
        for number in range(40):
            create = Transaction((Put(f"/registry/{number}", b""),), (Unchanged(f"/registry/{number}", Revision(0)),))
            results = await asyncio.gather(one.commit(create), other.commit(create), return_exceptions=True)
            assert sum(isinstance(result, PreconditionFailed) for result in results) == 1
            wins[one if isinstance(results[0], int) else other] += 1
        assert sum(wins.values()) == 40


async def test_watch_of_one_server_resumes_at_another_that_starts_later(etcd: Etcd) -> None:
    async with opened(etcd.url) as one:
        start = await put(one, "/registry/a", b"1")
        await put(one, "/registry/a", b"2")
    async with opened(etcd.url) as other:
        watch = await other.watch("/registry/", start)
        await put(other, "/registry/a", b"3")
        assert [(e.previous, e.value) for e in await take(watch, 2)] == [(b"1", b"2"), (b"2", b"3")]


async def test_keys_of_others_raise_the_revision_and_are_not_shown(etcd: Etcd) -> None:
    async with opened(etcd.url) as store:
        watch = await store.watch("/registry/", await store.revision())
        foreign = {"key": base64.b64encode(b"/others").decode(), "value": ""}
        call_etcd(etcd, "/v3/kv/put", foreign)
        assert await store.revision() == 2
        assert watch.progress == 2
        await put(store, "/registry/a", b"1")
        assert [event.key for event in await take(watch, 1)] == ["/registry/a"]
        assert [item.key for item in (await store.list("/")).items] == ["/registry/a"]


async def test_watch_goes_on_without_gap_after_etcd_crashed(etcd: Etcd) -> None:
    async with opened(etcd.url) as store:
        watch = await store.watch("/registry/", await store.revision())
        await put(store, "/registry/a", b"1")
        etcd.kill()
        with pytest.raises(StoreError, match=r"^etcd http"):
            await store.get("/registry/a")
        with pytest.raises(StoreError, match=r"^etcd http"):
            await put(store, "/registry/a", b"lost")
        etcd.start()
        call_etcd(etcd, "/v3/kv/put", {"key": base64.b64encode(b"/registry/b").decode(), "value": ""})
        await put(store, "/registry/a", b"2")
        assert [(e.key, e.value) for e in await take(watch, 3)] == [
            ("/registry/a", b"1"),
            ("/registry/b", b""),
            ("/registry/a", b"2"),
        ]


async def test_watch_that_missed_what_was_compacted_must_list(etcd: Etcd, monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(etcd.url) as store:
        await put(store, "/registry/a", b"0")
        watch = await store.watch("/registry/", await store.revision())
        # the watch of etcd hangs while the history it needs is forgotten
        held = asyncio.Event()
        stream = store._gateway.stream

        async def late(path: str, body: dict[str, object]) -> AsyncIterator[dict[str, object]]:
            await held.wait()
            async for result in stream(path, body):
                yield result

        monkeypatch.setattr(store._gateway, "stream", late)
        assert store._feed is not None
        store._feed.cancel()
        key = base64.b64encode(b"/registry/a").decode()
        for _ in range(5):
            newest = call_etcd(etcd, "/v3/kv/put", {"key": key, "value": ""})
        call_etcd(etcd, "/v3/kv/compaction", {"revision": newest["header"]["revision"]})  # type: ignore[index]
        held.set()
        with pytest.raises(Compacted):
            await take(watch, 1)
        item = await store.get("/registry/a")
        assert item is not None
        assert item.value == b""


async def test_history_is_compacted_at_intervals_by_any_server(etcd: Etcd) -> None:
    async with opened(etcd.url, compact_every_s=0.1) as store:
        first = await put(store, "/registry/a", b"1")
        shown = True
        async with asyncio.timeout(10):
            while shown:
                await put(store, "/registry/a", b"2")
                try:
                    await store.list("/registry/", revision=first)
                except Compacted:
                    shown = False
        assert await store._gateway.compacted() > first


async def test_values_larger_together_than_one_answer_may_be(etcd: Etcd) -> None:
    value = b"x" * 1_000_000
    async with opened(etcd.url) as store:
        for number in range(10):
            await put(store, f"/registry/{number}", value)
        await store.compact(await store.revision())
    async with opened(etcd.url) as fresh:
        assert [len(item.value) for item in (await fresh.list("/registry/")).items] == [1_000_000] * 10


async def test_large_backlog_comes_in_fragments_without_loss(etcd: Etcd) -> None:
    value = b"x" * 1_000_000
    async with opened(etcd.url) as store:
        for number in range(10):
            await put(store, f"/registry/{number}", value)
    async with opened(etcd.url) as fresh:
        watch = await fresh.watch("/registry/", Revision(1))
        assert len(await take(watch, 10)) == 10


async def test_next_server_is_used_where_one_does_not_answer(etcd: Etcd) -> None:
    async with opened(f"http://127.0.0.1:{free_port()}", etcd.url) as store:
        assert await put(store, "/registry/a", b"1") == 2


async def test_unreachable_etcd_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svcplane.store.etcd.store.START_PATIENCE_S", 0.2)
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(StoreError, match=f"^etcd {url} cannot be reached: Connect call failed"):
        await EtcdStore.open(EtcdAccess((url,)))


async def test_too_many_operations_name_the_flag(etcd: Etcd) -> None:
    async with opened(etcd.url) as store:
        with pytest.raises(StoreError, match="--max-txn-ops"):
            await store.commit(Transaction(tuple(Put(f"/registry/{number}", b"") for number in range(129))))


def test_flags_are_checked() -> None:
    with pytest.raises(ConfigError, match="must be http"):
        EtcdAccess.parse("localhost:2379")
    with pytest.raises(ConfigError, match="go together"):
        EtcdAccess.parse("https://localhost:2379", cert=Path("/x"))
    assert EtcdAccess.parse("http://a:1/, http://b:2").servers == ("http://a:1", "http://b:2")


def certificates(directory: Path) -> tuple[Path, Path]:
    """A self-signed certificate for loopback, good for both ends, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "etcd")])
    now = datetime.now(UTC)
    loopback = x509.SubjectAlternativeName(
        [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(loopback, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    cert_path, key_path = directory / "tls.crt", directory / "tls.key"
    cert_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return cert_path, key_path


async def test_client_certificate_over_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cert, key = certificates(tmp_path)
    flags = (f"--cert-file={cert}", f"--key-file={key}", f"--trusted-ca-file={cert}", "--client-cert-auth")
    with Etcd(tmp_path, *flags, scheme="https") as etcd:
        store = await EtcdStore.open(EtcdAccess.parse(etcd.url, cert, cert, key))
        try:
            assert await put(store, "/registry/a", b"1") == 2
        finally:
            await store.close()
        monkeypatch.setattr("svcplane.store.etcd.store.START_PATIENCE_S", 0.0)
        with pytest.raises(StoreError, match=f"etcd {etcd.url}"):
            await EtcdStore.open(EtcdAccess.parse(etcd.url, cert))


def store_verb(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from svcplane.cli.main import main; main()", "store", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


async def test_snapshot_holds_the_data_and_what_restores_it_is_said(etcd: Etcd, tmp_path: Path) -> None:
    async with opened(etcd.url) as store:
        await put(store, "/registry/a", b"a value to be found again")
    file = tmp_path / "snapshot"
    done = await asyncio.to_thread(store_verb, "backup", "--etcd-servers", etcd.url, str(file))
    assert (done.returncode, done.stdout) == (0, f"backed up to {file}\n")
    assert b"a value to be found again" in file.read_bytes()
    refused = await asyncio.to_thread(store_verb, "restore", "--etcd-servers", etcd.url, str(file))
    assert refused.returncode == 2
    assert f"etcdctl snapshot restore {file}" in refused.stderr


async def test_check_tells_a_healthy_etcd_from_one_that_is_away(etcd: Etcd) -> None:
    healthy = await asyncio.to_thread(store_verb, "check", "--etcd-servers", etcd.url)
    assert (healthy.returncode, healthy.stdout) == (0, "no damage found\n")
    etcd.kill()
    away = await asyncio.to_thread(store_verb, "check", "--etcd-servers", etcd.url)
    assert away.returncode == 1
    assert "cannot be reached" in away.stderr
