"""Models from a hub: Hugging Face and ModelScope."""
