"""Runs on disk: their layout, saved states, branches, and the library of adapters.

The names of the layout, of lists and of new folders are exported here too, since all rooms above use them:
``runs.create``, ``runs.find``.
"""

from lora_studio.runs.creating import create, new_captioning, new_pictures, require_text, wanted_name
from lora_studio.runs.layout import (
    OUTPUTS,
    OWN_FOLDERS,
    Run,
    cache_folder,
    captioning_folder,
    comparing_folder,
    deleted_folder,
    device_lock,
    drawing_lock,
    library_folder,
    pictures_folder,
    programs_file,
    queue_lock,
    queue_log,
    recent_file,
    studio_file,
    sweeps_folder,
    trials_folder,
)
from lora_studio.runs.listing import Listing, Unreadable, entries, existing, find, job_folders, listing

__all__ = [
    "OUTPUTS",
    "OWN_FOLDERS",
    "Listing",
    "Run",
    "Unreadable",
    "cache_folder",
    "captioning_folder",
    "comparing_folder",
    "create",
    "deleted_folder",
    "device_lock",
    "drawing_lock",
    "entries",
    "existing",
    "find",
    "job_folders",
    "library_folder",
    "listing",
    "new_captioning",
    "new_pictures",
    "pictures_folder",
    "programs_file",
    "queue_lock",
    "queue_log",
    "recent_file",
    "require_text",
    "studio_file",
    "sweeps_folder",
    "trials_folder",
    "wanted_name",
]
