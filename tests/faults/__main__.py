"""``python -m tests.faults``: writes ``docs/reliability.md`` anew."""

from lora_studio import files
from tests.faults import table

files.write(table.DOCUMENT, table.document())
print(f"{table.DOCUMENT.name} is up to date.")
