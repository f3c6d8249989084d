"""Token-level generation and side-by-side comparison."""
