"""Finished adapters of every form, from files onto a base."""
