"""The page: the only place that knows gradio and human language."""
