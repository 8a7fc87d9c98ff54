"""`kolosal doctor`: look at the machine, judge what was seen, say what to do."""
