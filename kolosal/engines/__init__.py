"""Engines: models in worker processes of their own, and the registry that names them.

Routes use `registry`, `engine`, `state`, `stream`, `parameters`, `ipc.calls` and what `memory` estimates; the rest is private to this
package. Nothing is imported here, because a worker process imports this package too and must not pay for asyncio.
"""
