"""The text of files, a module a format. What parses is run by a limited process (`kolosal/retrieval/extraction.py`)."""
