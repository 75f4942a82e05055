"""`python -m service` is `pan-serve`."""

from service.cli import main

main()
