"""`python -m secateurs` does what the command `secateurs` does."""

from secateurs.cli import main

if __name__ == "__main__":
    main()
