"""HTTP mechanics that all dialects share: bodies, errors, event streams, middleware and connection deadlines.

Knows Starlette and ASGI; knows nothing of engines, routes or any one protocol's words.
"""
