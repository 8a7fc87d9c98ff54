"""Between the daemon and a worker process: the frames, the calls in them, and the process itself."""
