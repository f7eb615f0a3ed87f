"""``python -m sofia2``."""

from sofia2.main import main

if __name__ == "__main__":
    main()
