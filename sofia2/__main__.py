"""``python -m sofia2``."""

from sofia2.cli import main

if __name__ == "__main__":
    main()
