"""The one descent: its loop, the rules of its steps, the order of its rows, and when it stops."""
