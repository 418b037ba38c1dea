"""`python -m orchestra`."""

from orchestra.cli.main import main

main()
