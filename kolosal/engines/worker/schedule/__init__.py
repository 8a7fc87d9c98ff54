"""Which tokens the next step computes, and in whose cells: scheduler, waiting queue, prefix cache, KV accounting, drafts. Pure."""
