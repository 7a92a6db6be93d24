"""The referee: it knows the true gradient, and what rounding may do to it, so it needs no tolerance.

docs/design.md has the map of its files. `verify` is the whole: every implementation of a problem before the referee.
"""
