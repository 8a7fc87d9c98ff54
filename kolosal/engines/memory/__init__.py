"""Which engines are in memory: what one takes, what the machine has, and who waits, loads or goes."""
