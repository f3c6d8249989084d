"""The model families, a row each: data, and what a family does in another way than transformers by itself."""
