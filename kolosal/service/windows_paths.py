"""What the things of a service are called on Windows, in its folder. Imports nothing: the program that Windows starts must answer soon."""

from __future__ import annotations

STATE_FOLDER = "state"
LOG_FOLDER = "logs"
LOG_FILE = f"{LOG_FOLDER}\\kolosal.log"
CONFIG_FILE = "config.yaml"
