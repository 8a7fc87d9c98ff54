"""HTTP mechanics that all dialects share: bodies, errors, event streams, middleware and connection deadlines.

Knows Starlette and ASGI, no engine and no route. Where no protocol has its own way it answers in OpenAI's.
"""
