"""`python -m qtrain`, for where the console script is not installed."""

from qtrain.cli import main

main()
