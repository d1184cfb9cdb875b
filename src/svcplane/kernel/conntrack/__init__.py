"""The connection tracking table, through the `conntrack` tool: `text` parses (PURE), `run` executes."""
