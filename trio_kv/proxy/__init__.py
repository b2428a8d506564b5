"""The client door: lines of JSON over TCP."""
