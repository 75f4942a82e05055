"""`python -m training.cli` runs `pan-train`; torchrun starts it this way."""

from training.cli import main

if __name__ == "__main__":
    main()
