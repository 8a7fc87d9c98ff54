"""`kolosal bench`: the same workloads against any OpenAI-compatible server, and what they measured.

Knows nothing of engines: everything here talks to a server by HTTP, as a client of any other server would. Whatever goes
wrong is a `BenchError`.
"""
