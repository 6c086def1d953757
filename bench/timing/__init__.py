"""How a row is timed: a process as a whole, or a step within one, and two sides of either kind in turn."""
