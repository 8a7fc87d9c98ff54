"""The options and help texts of the commands, a module a group. What a command does is in the module of its name in `commands`."""
