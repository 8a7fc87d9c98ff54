"""The Assistants API without HTTP: its objects, the states of a run, what a run says to the model and what the model says to it. Pure."""
