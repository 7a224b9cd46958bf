"""The click log: impressions and events in SQLite or PostgreSQL, and as files."""
