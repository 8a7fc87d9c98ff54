"""What the commands do, a module each: `kolosal load` is `load`. Options and help texts are `cli`'s.

What the user can do something about is a `CommandError` or a `ConfigError`, which `cli` shows as one line.
`client` is the daemon's HTTP API as the commands need it, `address` says which daemon is meant, `text` is how facts look.
"""
