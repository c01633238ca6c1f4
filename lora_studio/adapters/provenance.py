"""The header of a trained adapter: where it comes from, how it is used. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from lora_studio import __version__
from lora_studio.adapters import recipe as recipes
from lora_studio.adapters import usage


@dataclass(frozen=True)
class Provenance:
    """What the header tells.

    Attributes:
        prediction: "epsilon", "v" or "flow".
        resolution: pixels of a side.
        zero_snr: whether its noise ended without any signal (zero terminal SNR).
        clip_skip: that its texts were read with; 0 where the family has none.
        thumbnail: as ``metadata.thumbnail`` gives it.
    """

    recipe: recipes.Training
    title: str
    prediction: str
    resolution: int
    zero_snr: bool = False
    clip_skip: int = 0
    trigger: str = ""
    description: str = ""
    author: str = ""
    thumbnail: str = ""

    @property
    def texts(self) -> dict[str, str]:
        """The whole header; ``metadata.at`` reduces it to a level of privacy."""
        return {**self._modelspec, **self._reference, recipes.KEY: recipes.dumps(self.recipe)}

    @property
    def _modelspec(self) -> dict[str, str]:
        started = self.recipe.started
        when = datetime.fromtimestamp(started, UTC) if started else datetime.now(UTC)
        told = {
            "title": self.title,
            "resolution": f"{self.resolution}x{self.resolution}",
            "date": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "prediction_type": self.prediction,
            "trigger_phrase": self.trigger,
            "usage_hint": usage.hint(self.trigger),
            "description": self.description,
            "author": self.author,
            "thumbnail": self.thumbnail,
        }
        return {f"modelspec.{key}": value for key, value in told.items() if value}

    @property
    def _reference(self) -> dict[str, str]:
        """The ``ss_*`` entries that other programs show: alias, base model, times, main settings, dataset."""
        recipe, settings = self.recipe, recipes.cut_paths(self.recipe.settings)
        weighting = settings.get("weighting", "min-snr")
        if weighting != "min-snr":
            settings = settings | {"min_snr_gamma": ""}  # it had no effect
        shown: dict[str, Any] = {
            "output_name": self.title,
            "sd_model_name": recipe.base,
            "new_sd_model_hash": recipe.base_sha256,
            "clip_skip": str(self.clip_skip or None),
            "training_started_at": recipe.started,
            "training_finished_at": recipe.started + recipe.seconds if recipe.seconds else "",
            "num_train_images": len(recipe.images) - recipe.class_images,
            "num_reg_images": recipe.class_images or "",
            "steps": recipe.steps,
            "max_train_steps": settings.get("steps", ""),
            "lr_scheduler": settings.get("schedule", ""),
            **{key: settings.get(key, "") for key in _SETTINGS},
            "debiased_estimation": weighting == "debiased" or "",
            "v_parameterization": self.prediction == "v",
            "zero_terminal_snr": self.zero_snr,
            **self._folders,
            "studio_version": __version__,
        }
        return {f"ss_{key}": str(value) for key, value in shown.items() if value != ""}

    @property
    def _folders(self) -> dict[str, str]:
        """The folders of pictures and those of class pictures, with repeats, and the tags of each."""
        recipe = self.recipe
        whole = recipes.FolderRecord(images=len(recipe.images), tags=recipe.tags)
        folders = recipe.folders or {str(recipes.cut_paths(recipe.settings).get("data") or "pictures"): whole}
        own, others = (
            {
                name: {"n_repeats": one.repeats, "img_count": one.images}
                for name, one in folders.items()
                if one.regularisation == of_class
            }
            for of_class in (False, True)
        )
        tags = {name: one.tags for name, one in folders.items() if one.tags}
        return {
            "tag_frequency": json.dumps(tags, ensure_ascii=False) if tags else "",
            "dataset_dirs": json.dumps(own, ensure_ascii=False),
            "reg_dataset_dirs": json.dumps(others, ensure_ascii=False) if others else "",
        }


_SETTINGS = ("learning_rate", "optimizer", "min_snr_gamma", "noise_offset", "seed")
"""Those that the reference trainer calls as the studio does."""
