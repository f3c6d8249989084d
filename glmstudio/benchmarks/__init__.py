"""What training and answering cost: ours beside others on the same model. Imports rivals only where installed."""
