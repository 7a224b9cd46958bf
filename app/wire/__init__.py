"""Requests and replies as they look on the wire."""
