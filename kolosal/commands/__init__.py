"""What the commands do: the daemon's API as seen from a terminal."""
