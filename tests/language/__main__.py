"""The catalogues: ``python -m tests.language`` brings them in line with the code.

``python -m tests.language missing de`` prints what German lacks as JSON: each message with its plural and its files.
``python -m tests.language fill de translations.json`` adds translations: {message: text, or a list of plural forms}.
"""

import json
import sys
from pathlib import Path

from tests.language import extraction

match sys.argv[1:]:
    case ["missing", language]:
        known = {
            one.id[0] if isinstance(one.id, tuple) else one.id
            for one in extraction.read(language)
            if one.id and all([one.string] if isinstance(one.string, str) else one.string)
        }
        rows = [
            {"message": template, "plural": plural, "files": files}
            for template, (plural, files) in sorted(extraction.messages().items())
            if template not in known
        ]
        print(json.dumps(rows, ensure_ascii=False, indent=1))
    case ["fill", language, file]:
        print(extraction.update(language, json.loads(Path(file).read_text("utf-8"))), "missing")
    case []:
        for language in extraction.TRANSLATED:
            print(language, extraction.update(language), "missing")
    case _:
        print(__doc__)
