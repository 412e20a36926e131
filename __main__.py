"""``python -m peftmark``."""

from .cli import main

if __name__ == "__main__":
    main()
