"""GLM Studio: annotate, train and compare ChatGLM-family models. Importing this pulls in no heavy package."""

__version__ = "0.1.0"
