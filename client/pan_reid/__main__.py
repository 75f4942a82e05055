"""`python -m pan_reid` is `pan-reid`."""

from pan_reid.cli.main import main

main()
