"""`python -m rltrainer.cli`."""

from rltrainer.cli import main

if __name__ == "__main__":
    main()
