"""``python -m adapterdock.cli`` is the command ``adapterdock``."""

from .start import main

if __name__ == "__main__":
    main()
