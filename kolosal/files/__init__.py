"""The only opener and the only writer of files: regular ones only, with bounds, and never waiting for ever."""
