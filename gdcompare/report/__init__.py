"""How results are shown: tables for a terminal."""
