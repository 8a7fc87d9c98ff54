"""Chat templates: a conversation becomes the text that the model was trained to see, in a process that only renders."""
