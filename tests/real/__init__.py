"""Real models all the way, beside plain transformers, PEFT and llama.cpp: `make test-real`. No part of `make test`."""
