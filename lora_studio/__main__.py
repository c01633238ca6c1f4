"""``python -m lora_studio``: the command line in the interpreter's own environment."""

import sys

from lora_studio.cli import main

if __name__ == "__main__":
    sys.exit(main())
