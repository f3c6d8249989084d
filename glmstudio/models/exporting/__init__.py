"""Every way out: adapters with a README, merged weights that were checked, GGUF."""
