"""The worker process of a backend that is not llama.cpp: the same frames, over an event loop of its own."""
