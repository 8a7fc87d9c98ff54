"""Configuration: defaults, a YAML file, the environment and flags become one frozen `Settings`."""
