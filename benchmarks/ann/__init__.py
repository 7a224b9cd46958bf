"""Nearest-neighbour indexes against one another: recall, latency, memory, bytes read, build time."""
