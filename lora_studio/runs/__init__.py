"""Runs on disk: where everything of one lies, its saved states, branches of it, and the library of adapters.

The layout's names are here as well, since every room above asks for a run: ``runs.create``, ``runs.find``.
"""

from lora_studio.runs.layout import (
    OUTPUTS,
    Run,
    cache_folder,
    create,
    device_lock,
    existing,
    find,
    library_folder,
    new_pictures,
    pictures_folder,
    studio_file,
    trials_folder,
    wanted_name,
)

__all__ = [
    "OUTPUTS",
    "Run",
    "cache_folder",
    "create",
    "device_lock",
    "existing",
    "find",
    "library_folder",
    "new_pictures",
    "pictures_folder",
    "studio_file",
    "trials_folder",
    "wanted_name",
]
