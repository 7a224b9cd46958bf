"""Everything that stores documents and finds candidates."""
