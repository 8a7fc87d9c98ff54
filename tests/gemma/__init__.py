"""Tests on Gemma 3 270M, a real model with sliding windows. They need its file: `scripts/test.py --extra gemma`."""
