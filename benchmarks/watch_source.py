"""An API server that does nothing but tell of changes: a source for a proxy that is faster than any server's disk.

It knows the objects of `cluster_load`, answers lists of them and holds watches; changes are given by `Source.change`,
ready encoded, so that next to nothing of the machine goes into making them.  Writes (Leases) are refused.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiohttp import web

from benchmarks.cluster_load import endpoint_ip, service_tree, slice_tree
from svcplane.api import codec
from svcplane.api.resources import ENDPOINT_SLICES, SERVICES, Resource

FIRST_VERSION = 1000


class Source:
    """Objects of `services` Services with `endpoints` each.  One watcher of EndpointSlices is served."""

    def __init__(self, services: int, endpoints: int) -> None:
        self._services = [codec.encode_stored(service_tree(number)) for number in range(services)]
        self._slices = [codec.encode_stored(slice_tree(number, endpoints)) for number in range(services)]
        self._serial = 0
        self._endpoints = endpoints
        self._watch: web.StreamResponse | None = None
        self.watched = asyncio.Event()

    async def change(self) -> None:
        """Tell the watcher that the first endpoint of one Service has become another."""
        assert self._watch is not None
        self._serial += 1
        number = self._serial * 37 % len(self._slices)
        fresh = f"10.64.{self._serial >> 8 & 255}.{self._serial & 255}"
        stored = self._slices[number].replace(f'"{endpoint_ip(number, 0)}"'.encode(), f'"{fresh}"'.encode())
        body = codec.splice_object(stored, FIRST_VERSION + self._serial, ENDPOINT_SLICES)
        await self._watch.write(b'{"type":"MODIFIED","object":%s}\n' % body)

    async def answer(self, request: web.BaseRequest) -> web.StreamResponse:
        resource = next(
            (kind for kind in (SERVICES, ENDPOINT_SLICES) if request.path.endswith(f"/{kind.plural}")), None
        )
        if request.method != "GET":
            return web.json_response({"kind": "Status", "status": "Failure", "code": 403}, status=403)
        if request.query.get("watch"):
            return await self._hold(request, resource)
        stored = {SERVICES: self._services, ENDPOINT_SLICES: self._slices}.get(resource, []) if resource else []
        items = b",".join(codec.splice_item(one, FIRST_VERSION) for one in stored)
        head = b'{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"%d"},"items":[' % FIRST_VERSION
        return web.Response(body=head + items + b"]}", content_type="application/json")

    async def _hold(self, request: web.BaseRequest, resource: Resource | None) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        if resource is ENDPOINT_SLICES:
            self._watch = response
            self.watched.set()
        await asyncio.Event().wait()  # until the watcher goes
        return response


@asynccontextmanager
async def source(directory: Path, services: int, endpoints: int) -> AsyncIterator[tuple[Source, Path]]:
    """The source and its kubeconfig."""
    made = Source(services, endpoints)
    runner = web.ServerRunner(web.Server(made.answer), shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        kubeconfig = directory / "kubeconfig"
        cluster = {"name": "it", "cluster": {"server": f"http://127.0.0.1:{runner.addresses[0][1]}"}}
        context = {"name": "it", "context": {"cluster": "it"}}
        kubeconfig.write_text(json.dumps({"current-context": "it", "clusters": [cluster], "contexts": [context]}))
        yield made, kubeconfig
    finally:
        await runner.cleanup()
