"""Who may reach the daemon and do what: API keys, hosts and origins, and what it refuses to start with."""
