"""Engines: models in worker processes of their own, and the registry that names them.

Routes use `registry`, `engine`, `state`, `stream`, `parameters`, `ipc.calls` and what `memory` estimates; `daemon` puts the rest together.
Nothing is imported here, because a worker process imports this package too and must not pay for asyncio.
"""
