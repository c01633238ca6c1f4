"""Runs on disk: where everything of one lies, its saved states, branches of it, and the library of adapters.

The layout's names are here as well, since every room above asks for a run: ``runs.create``, ``runs.find``.
"""

from lora_studio.runs.layout import (
    OUTPUTS,
    Listing,
    Run,
    Unreadable,
    cache_folder,
    create,
    device_lock,
    entries,
    existing,
    find,
    library_folder,
    listing,
    new_pictures,
    pictures_folder,
    studio_file,
    trials_folder,
    wanted_name,
)

__all__ = [
    "OUTPUTS",
    "Listing",
    "Run",
    "Unreadable",
    "cache_folder",
    "create",
    "device_lock",
    "entries",
    "existing",
    "find",
    "library_folder",
    "listing",
    "new_pictures",
    "pictures_folder",
    "studio_file",
    "trials_folder",
    "wanted_name",
]
