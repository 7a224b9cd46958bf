"""How a window is read."""
