"""Configuration: a YAML file, the environment and flags become one frozen `Settings`, with a model for each section.

`server`, `auth`, `engines`, `responses`, `rpc`, `sessions`, `logging` and `models` are the sections: leaves, which the part of
the daemon that each is for imports. `sources` reads where values come from, `load` puts them in order. Whatever is wrong with one is a `ConfigError`.
"""
