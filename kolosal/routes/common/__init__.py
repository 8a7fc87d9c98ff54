"""What all protocols share: request fields, turns, unary calls, access, and what an endpoint says of itself."""
