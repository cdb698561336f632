"""`python -m dualrs.cli`: the command line where its script is not on the path."""

from dualrs.cli import main

main()
