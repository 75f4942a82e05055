"""`python -m service` is `pan-serve`."""

from service.cli.main import main

main()
