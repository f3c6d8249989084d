"""The door: the verbs that page and command line share, and what outlives a click. Knows no gradio and no words."""

from glmstudio.studio.studio import Studio

__all__ = ["Studio"]
