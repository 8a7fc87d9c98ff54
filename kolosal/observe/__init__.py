"""What the daemon tells of itself: counts, events, the tails of logs, traces. Never a prompt, an answer or a key."""
