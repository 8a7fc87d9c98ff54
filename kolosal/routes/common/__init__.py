"""What all protocols share: request fields, turns, unary calls, access, and what an endpoint says of itself.

Decoders raise `InvalidRequest` and `UnsupportedFeature`. What waits for an engine raises any `KolosalError` of it (there is none of that
name, it cannot be loaded, it is full, it refused or failed), and, where it was given the request, `ClientDisconnect` as soon
as the client has left; nothing runs on then.
"""
