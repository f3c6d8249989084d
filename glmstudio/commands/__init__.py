"""The commands of `python -m glmstudio`, a file for each kind; `cli.py` puts them together."""
