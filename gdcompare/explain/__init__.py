"""Seeing why: a problem's derivatives worked out step by step, in every way at once, and proved on symbols."""
