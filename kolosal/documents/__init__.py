"""Files of clients, vector stores of them, and searches in those.

Over the store (what is kept), the engines (what embeds) and `kolosal.retrieval` (what decides). Knows no HTTP.
"""
