"""Fixtures for tests of what uses svcplane: a whole API server in this process, without sockets or files."""
