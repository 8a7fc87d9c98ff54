"""Tests of backends other than llama.cpp."""
