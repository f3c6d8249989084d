"""Tokenizers of ChatGLM2, ChatGLM3 and GLM-4 from their original files, and whether a vocabulary fits a base."""
