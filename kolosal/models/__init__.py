"""The models on this machine's disks, by name: what they are, where they lie, and what is said of them. Loads nothing."""
