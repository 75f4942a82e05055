"""`python -m pan_reid` runs `pan-reid`."""

from pan_reid.cli.main import main

main()
