"""A process of the worker's own that may cost little time and memory: for what strangers wrote and native code or Python runs."""
