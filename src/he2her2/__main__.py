"""`python -m he2her2` is the command `he2her2`."""

from he2her2.cli import main

if __name__ == "__main__":
    main()
