"""What a model folder is, holds and needs, told without loading its weights."""
