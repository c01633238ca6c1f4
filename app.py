"""LoRA Studio. ``python3 app.py`` opens the studio; ``python3 app.py --help`` lists the commands."""

import sys

if sys.version_info < (3, 11):
    sys.exit(
        "LoRA Studio needs Python 3.11 or newer; this is %d.%d. Install it from python.org, then run app.py with it."
        % sys.version_info[:2]
    )

from lora_studio import bootstrap

if __name__ == "__main__":
    bootstrap.enter()

    from lora_studio.cli import main

    sys.exit(main())
