"""`python -m glmstudio`: the command line."""

from glmstudio.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
