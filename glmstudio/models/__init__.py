"""Model families, loading, the resident base and the gate in front of it."""
