"""The small base that ships with the program: its text generator, vocabulary, initialisation and pre-training.

Knows nothing of the page, of the store or of LoRA.
"""
