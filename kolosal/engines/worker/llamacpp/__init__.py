"""The backend over llama.cpp: the only code that calls it."""
