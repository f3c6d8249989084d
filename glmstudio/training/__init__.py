"""The one training function, its batches, loss, metrics and run folders."""
