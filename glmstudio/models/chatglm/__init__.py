"""ChatGLM-6B for today's transformers. Importing this package pulls in neither torch nor transformers."""
