"""What can be found in files: their text, its chunks, which of them answer a question, and how an answer cites them.

Knows no HTTP, no tables and no engine: vectors are given.
"""
