"""The tests: what the suite promises, run over every registered backend and problem."""
