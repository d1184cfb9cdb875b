"""iptables: restore text (pure) and the tools that take it."""
