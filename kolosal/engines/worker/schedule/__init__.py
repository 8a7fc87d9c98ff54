"""Which tokens are computed in the next step: scheduler, KV cache accounting, prefix cache. Pure."""
