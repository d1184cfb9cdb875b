"""Real connections from the place a packet would come from: `text` reads /proc (PURE), `run` executes."""
