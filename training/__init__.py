"""Everything offline: evaluation, learning, promotion."""
