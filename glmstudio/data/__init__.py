"""Examples, files, the store and snapshots."""
