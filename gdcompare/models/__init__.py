"""Models as somebody wrote them: seen from NumPy, matched by their parameters, compared with one another."""
