"""Runs on disk: their layout, saved states, branches, and the library of adapters.

The layout's names are exported here too, since all rooms above use them: ``runs.create``, ``runs.find``.
"""

from lora_studio.runs.layout import (
    OUTPUTS,
    Listing,
    Run,
    Unreadable,
    cache_folder,
    captioning_folder,
    create,
    device_lock,
    entries,
    existing,
    find,
    library_folder,
    listing,
    new_captioning,
    new_pictures,
    pictures_folder,
    queue_lock,
    queue_log,
    require_text,
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
    "captioning_folder",
    "create",
    "device_lock",
    "entries",
    "existing",
    "find",
    "library_folder",
    "listing",
    "new_captioning",
    "new_pictures",
    "pictures_folder",
    "queue_lock",
    "queue_log",
    "require_text",
    "studio_file",
    "trials_folder",
    "wanted_name",
]
