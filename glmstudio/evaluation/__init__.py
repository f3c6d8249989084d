"""Scores of answers against targets."""
