"""`python -m gdcompare` is the `gdcompare` command."""

from gdcompare.cli import main

main()
