"""Tensors of a checkpoint that no part of a model is made of, and which of them do not matter."""

from __future__ import annotations

import re
from collections.abc import Iterable

_HARMLESS = {
    r"model_ema\.": "averages over the training, which no program draws with",
    r"(?:first_stage_model\.)?loss\.": "the VAE's own loss",
    r"(?:alphas|betas|sqrt_|log_one_minus_|posterior_|lvlb_weights|logvar)\w*$": "the noise schedule, worked out again",
    r"denoiser\.(?:sigmas|log_sigmas)$": "the same, in Stability's own trainer",
    r".*(?:position_ids|attn_mask|logit_scale)$": "counting, masks and CLIP's temperature",
    r".*(?:vision_model|visual|visual_projection)\.": "CLIP's other half, which reads pictures",
    r"(?:cond_stage_model|conditioner\.embedders\.0)\.transformer\.text_projection": "a summary that is not asked for",
    r"cond_stage_model\.model\.(?:transformer\.resblocks\.23\.|text_projection$)": "SD 2 ends one layer earlier",
    r"(?:v_pred|ztsnr|edm_\w+(?:\.\w+)?)$": "marks of what the model predicts",
    r"(?:global_step|epoch|iteration)s?$": "how far its training was",
}
"""A pattern for the start of keys in the original layout -> what they are."""
_BESIDE = {"edm_vpred.sigma_min": "edm_vpred.sigma_max"}
"""A mark -> the one without which it says nothing."""
_KNOWN = re.compile("|".join(f"(?:{pattern})" for pattern in _HARMLESS))


def unread(keys: Iterable[str]) -> list[str]:
    """Those of ``keys`` that may change what a model draws, sorted."""
    found = set(keys)
    return sorted(key for key in found if not _KNOWN.match(key) or _BESIDE.get(key, key) not in found)
