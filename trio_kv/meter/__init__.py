"""What is counted where it happens, so cheaply that it is always counted; whoever wants to see it reads it.

Pure, and below all other rooms. It knows neither who reads nor in which format (`control.metrics` does).
"""
