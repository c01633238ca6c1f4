"""Scorers: models of transformers that give a drawn picture a number. CLIP (Radford et al. 2021) says how well it shows
its prompt and how like the training pictures it is, DINO (Caron et al. 2021) and DINOv2 only the latter, and aesthetic
predictors how well people would like it.

A kind is a row of ``KINDS``. Letters: N pictures, T training pictures, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
import transformers
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from lora_studio.errors import ModelError
from lora_studio.language import in_row, tr
from lora_studio.vision import loading, local

_ROLE = tr("scorer")
_AT_ONCE = 8


class Scores(NamedTuple):
    """One number for each picture, (N,) float32 on the CPU; and that of the training pictures, where there is one."""

    of: Tensor
    training: float | None = None


class Scorer(Protocol):
    """A model that scores pictures."""

    def scores(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Scores]:
        """By what they measure, of ``pictures`` that were drawn of ``prompts``, which are without a trigger word."""
        ...


class ScorerKind(NamedTuple):
    """A kind of scorers: what it is called, whether a configuration is one, and how one is made of its folder."""

    title: str
    accepts: Callable[[Mapping[str, Any]], bool]
    load: Callable[[Path, Iterable[Image.Image], torch.device | str], Scorer]


def load(folder: Path, training: Iterable[Image.Image], device: torch.device | str = "cpu") -> Scorer:
    """The scorer in ``folder``, on ``device``, which knows the ``training`` pictures; at least two of them.

    Raises:
        ModelError: it is of no known kind, damaged, or has only pickled weights.
    """
    return kind_of(folder).load(folder, training, device)


def kind_of(folder: Path) -> ScorerKind:
    """The kind of scorer that ``folder`` holds, as its configuration says. Raises as ``load``."""
    if not folder.is_dir():
        raise ModelError(
            tr("There is no folder {folder}.", folder=folder), where=folder, do=tr("Name the folder of a model.")
        )
    config = loading.config(folder, _ROLE)
    if found := next((kind for kind in KINDS if kind.accepts(config)), None):
        return found
    said = next(iter(config.get("architectures") or []), "") or config.get("model_type") or tr("unknown")
    raise ModelError(
        tr("{name} is of the kind {kind}, which gives pictures no score.", name=folder.name, kind=said),
        where=folder,
        do=tr("Name the folder of one of these: {kinds}.", kinds=in_row(kind.title for kind in KINDS)),
    )


class Likeness:
    """How like the training pictures others are: the mean cosine of features with theirs, as in DreamBooth (Ruiz et
    al. 2023, section 4.1).

    Args:
        features: (T, D) of the training pictures.
    """

    def __init__(self, features: Tensor):
        self.features = F.normalize(features, dim=-1)

    def __call__(self, features: Tensor) -> Scores:
        """Of features (N, D). That of the training pictures is among themselves, each with the others."""
        own = self.features @ self.features.T
        count = len(own)
        among = (own.sum() - own.diagonal().sum()) / (count * (count - 1))
        return Scores((F.normalize(features, dim=-1) @ self.features.T).mean(1), among.item())


class Clip:
    """``text`` is the cosine of a picture's and its prompt's features, ``pictures`` as ``Likeness``."""

    def __init__(self, folder: Path, training: Iterable[Image.Image], device: torch.device | str):
        self.model = loading.model(transformers.CLIPModel, folder, _ROLE).to(device).eval()
        self.processor = _processor(folder)
        self.tokenizer = loading.quietly(
            folder, _ROLE, lambda: transformers.AutoTokenizer.from_pretrained(folder, **loading.LOCAL)
        )
        self.like = Likeness(self._seen(training))

    def scores(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Scores]:
        seen = self._seen(pictures)
        told = dict(zip(dict.fromkeys(prompts), self._read(prompts), strict=True))
        agreement = F.cosine_similarity(seen, torch.stack([told[prompt] for prompt in prompts]))
        return {"text": Scores(agreement), "pictures": self.like(seen)}

    def _seen(self, pictures: Iterable[Image.Image]) -> Tensor:
        return _features(self.processor, pictures, self.model, lambda inputs: self.model.get_image_features(**inputs))

    @torch.inference_mode()
    def _read(self, prompts: Sequence[str]) -> Tensor:
        inputs = self.tokenizer(
            list(dict.fromkeys(prompts)),
            padding=True,
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        )
        return _pooled(self.model.get_text_features(**inputs.to(self.model.device))).float().cpu()


class Dino:
    """``pictures`` as ``Likeness``, of the class token after the last layer."""

    def __init__(self, folder: Path, training: Iterable[Image.Image], device: torch.device | str):
        loaded = loading.model(transformers.AutoModel, folder, _ROLE, **_without_pooler(folder))
        self.model, self.processor = loaded.to(device).eval(), _processor(folder)
        self.like = Likeness(self._seen(training))

    def scores(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Scores]:
        return {"pictures": self.like(self._seen(pictures))}

    def _seen(self, pictures: Iterable[Image.Image]) -> Tensor:
        return _features(
            self.processor, pictures, self.model, lambda inputs: self.model(**inputs).last_hidden_state[:, 0]
        )


class Classifier:
    """A classifier with one or two labels: its output, or the probability of the better label, in per cent. The column
    has the label's name.
    """

    def __init__(self, folder: Path, training: Iterable[Image.Image], device: torch.device | str):
        self.model = loading.model(transformers.AutoModelForImageClassification, folder, _ROLE).to(device).eval()
        self.processor = _processor(folder)
        labels = [str(self.model.config.id2label[number]) for number in range(self.model.config.num_labels)]
        self.chosen = _better(labels, folder)
        self.name = labels[self.chosen] if len(labels) > 1 else "score"
        self.training = self._scored(training).mean().item()

    def scores(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Scores]:
        return {self.name: Scores(self._scored(pictures), self.training)}

    def _scored(self, pictures: Iterable[Image.Image]) -> Tensor:
        logits = _features(self.processor, pictures, self.model, lambda inputs: self.model(**inputs).logits)
        return logits[:, 0] if logits.shape[1] == 1 else 100 * logits.softmax(1)[:, self.chosen]


class AestheticHead:
    """Linear layers on CLIP's features of a picture, which give a score from about 1 to 10: LAION's predictors in the
    layout of ``simple-aesthetics-predictor``. The weights of the layers lie beside those of CLIP.
    """

    def __init__(self, folder: Path, training: Iterable[Image.Image], device: torch.device | str):
        said = loading.config(folder, _ROLE)
        config = transformers.CLIPVisionConfig.from_dict({**said, "model_type": "clip_vision_model"})
        self.model = loading.model(transformers.CLIPVisionModelWithProjection, folder, _ROLE, config=config)
        self.model.to(device).eval()
        self.processor = _processor(folder)
        self.head = _head(folder, rectified=said["architectures"][0].endswith("ReLU"))
        self.training = self._scored(training).mean().item()

    def scores(self, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> dict[str, Scores]:
        return {"score": Scores(self._scored(pictures), self.training)}

    @torch.inference_mode()
    def _scored(self, pictures: Iterable[Image.Image]) -> Tensor:
        seen = _features(self.processor, pictures, self.model, lambda inputs: self.model(**inputs).image_embeds)
        return self.head(F.normalize(seen, dim=-1))[:, 0]


@torch.inference_mode()
def _features(
    processor: Any, pictures: Iterable[Image.Image], model: Any, see: Callable[[Mapping[str, Tensor]], Any]
) -> Tensor:
    """(N, D) float32 on the CPU."""
    found = [
        _pooled(see(processor(images=[one.convert("RGB") for one in some], return_tensors="pt").to(model.device)))
        for some in _batches(pictures)
    ]
    return torch.cat(found).float().cpu()


def _batches(pictures: Iterable[Image.Image]) -> Iterator[list[Image.Image]]:
    """Few of them are in memory at a time, where they are opened one by one."""
    source = iter(pictures)
    while some := list(islice(source, _AT_ONCE)):
        yield some


def _pooled(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.pooler_output


def _processor(folder: Path) -> Any:
    return loading.quietly(
        folder, _ROLE, lambda: transformers.AutoImageProcessor.from_pretrained(folder, **loading.LOCAL)
    )


def _without_pooler(folder: Path) -> dict[str, Any]:
    """A plain ViT has a layer behind the class token that DINO was not trained with, and whose weights are missing."""
    return {"add_pooling_layer": False} if loading.config(folder, _ROLE).get("model_type") == "vit" else {}


_WORSE = {"not", "non", "no", "un", "bad", "low", "lq", "poor", "worst", "ugly"}


def _better(labels: Sequence[str], folder: Path) -> int:
    """The place of the label that is good.

    Raises:
        ModelError: they do not say which one is.
    """
    good = [place for place, label in enumerate(labels) if label.lower().replace("-", "_").split("_")[0] not in _WORSE]
    if len(labels) == 1 or (len(labels) == 2 and len(good) == 1):
        return good[0] if good else 0
    raise ModelError(
        tr(
            "The labels of {name} do not say which picture is the better one: {labels}.",
            name=folder.name,
            labels=", ".join(labels[:4]),
        ),
        where=folder / local.CONFIG,
        do=tr("Name a predictor with one output, or with two labels such as aesthetic and not_aesthetic."),
    )


def _head(folder: Path, rectified: bool) -> nn.Sequential:
    """The layers ``predictor`` or ``layers.N``, in their order, with a ReLU between them or nothing."""
    tensors = {name: tensor for path in local.weights(folder) for name, tensor in load_file(path).items()}
    names = [name.removesuffix(".weight") for name in tensors if name.endswith(".weight")]
    names = [name for name in names if name == "predictor" or name.startswith("layers.")]
    if not names:
        raise ModelError(
            tr("{name} lacks its last layers.", name=folder.name), where=folder, do=tr("Download the model again.")
        )
    layers: list[nn.Module] = []
    for name in sorted(names, key=lambda name: int(name.rpartition(".")[2]) if "." in name else 0):
        weight, bias = tensors[f"{name}.weight"].float(), tensors[f"{name}.bias"].float()
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.load_state_dict({"weight": weight, "bias": bias})
        layers += [nn.ReLU(), layer] if rectified and layers else [layer]
    return nn.Sequential(*layers)


_DINO = {"ViTModel", "Dinov2Model", "Dinov2WithRegistersModel", "DINOv3ViTModel"}


def _architectures(config: Mapping[str, Any]) -> Iterator[str]:
    yield from map(str, config.get("architectures") or ())


KINDS = (
    ScorerKind("CLIP (CLIPModel)", lambda config: "CLIPModel" in _architectures(config), Clip),
    ScorerKind(
        tr("DINO, DINOv2 or DINOv3 (a ViT without a classifier)"),
        lambda config: not _DINO.isdisjoint(_architectures(config)),
        Dino,
    ),
    ScorerKind(
        tr("an aesthetic classifier with one or two labels (…ForImageClassification)"),
        lambda config: any(name.endswith("ForImageClassification") for name in _architectures(config)),
        Classifier,
    ),
    ScorerKind(
        tr("an aesthetic predictor on CLIP (AestheticsPredictorV1, V2Linear, V2ReLU)"),
        lambda config: any(name.startswith("AestheticsPredictor") for name in _architectures(config)),
        AestheticHead,
    ),
)
"""All kinds, in the order in which they are tried."""
