"""The EndpointSlice controller: `plan` decides (PURE), `controller` does."""
