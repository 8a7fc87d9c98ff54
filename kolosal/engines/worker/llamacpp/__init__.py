"""The backend over llama.cpp: the only native code."""
