"""What runs in a worker process only: one model, one engine loop. The only code that imports llama_cpp, numpy or Jinja."""
