#!/bin/sh
# Opens LoRA Studio. macOS: double-click it (the first time: right-click, Open). Linux: run it.
cd "$(dirname "$0")" || exit 1
for python in python3.13 python3.12 python3.11 python3; do
    if "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        exec "$python" app.py "$@"
    fi
done
echo "LoRA Studio needs Python 3.11 or newer. Install it from https://www.python.org/downloads/, then open this again."
printf 'Press Enter to close. '
read -r _
exit 1
