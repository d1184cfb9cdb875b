"""The Endpoints controller: `plan` decides (PURE), `controller` does."""
