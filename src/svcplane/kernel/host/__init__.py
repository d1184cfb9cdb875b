"""What this host offers and how it is set: `objects` and `text` (PURE), `run` (reads /proc, /sys and tools)."""
