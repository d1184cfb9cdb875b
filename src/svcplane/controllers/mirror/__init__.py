"""EndpointSlices for Endpoints that people write: of Services without a selector."""
