"""What writes of Endpoints and EndpointSlices are answered."""

from svcplane.testing.server import Caller

ENDPOINTS = "/api/v1/namespaces/default/endpoints"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
MERGE = {"Content-Type": "application/merge-patch+json"}


async def test_empty_texts_of_ports_of_endpoints_are_not_there(admin: Caller) -> None:
    subset = {"addresses": [{"ip": "192.0.2.1"}], "ports": [{"name": "", "port": 80, "protocol": ""}]}
    _, body = await admin.call("POST", ENDPOINTS, {"metadata": {"name": "e"}, "subsets": [subset]})
    assert body["subsets"][0]["ports"] == [{"port": 80, "protocol": "TCP"}]


async def test_new_slices_of_domain_names_are_warned_of(admin: Caller) -> None:
    body = {"metadata": {"name": "s"}, "addressType": "FQDN", "endpoints": [{"addresses": ["a.example"]}]}
    made = await admin.send("POST", SLICES, body)
    assert made.warnings == ("spec.addressType: FQDN endpoints are deprecated",)
    changed = await admin.send("PATCH", f"{SLICES}/s", {"metadata": {"labels": {"a": "b"}}}, MERGE)
    assert (changed.status, changed.warnings) == (200, ())
