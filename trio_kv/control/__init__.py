"""The control door: events out, commands in, over WebSocket with a token."""
