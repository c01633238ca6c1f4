"""The real code of transformers on tiny models, whose last layers are set so that the scores are known."""

import json
import math

import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from lora_studio.errors import ModelError
from lora_studio.vision import scorers
from tests.vision.tiny import WORDS

PICTURES = [Image.new("RGB", (40, 30), colour) for colour in ("red", "blue", "white")]
PROMPTS = ["a boat", "a house", "a boat"]
VISION = {
    "hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
    "patch_size": 4,
}  # fmt: skip


def pictures_of(folder):
    side = {"height": 8, "width": 8}
    transformers.CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size=side).save_pretrained(folder)


def constant(norm, values):
    """A norm that gives ``values`` whatever it is given."""
    torch.nn.init.zeros_(norm.weight)
    norm.bias.data = torch.tensor(values)


def clip(folder):
    """Every picture is seen as (3, 4, 0, 0), and every text as (1, 0, 0, 0)."""
    text = {
        "vocab_size": len(WORDS), "hidden_size": 4, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 16, "eos_token_id": 3, "bos_token_id": 2,
        "pad_token_id": 0,
    }  # fmt: skip
    model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=VISION, projection_dim=4))
    constant(model.vision_model.post_layernorm, [3.0, 4.0, 0.0, 0.0])
    constant(model.text_model.final_layer_norm, [1.0, 0.0, 0.0, 0.0])
    for projection in (model.visual_projection, model.text_projection):
        torch.nn.init.eye_(projection.weight)
    model.save_pretrained(folder)
    pictures_of(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    transformers.BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def classifier(folder, labels, biases):
    """Its logits are ``biases`` for every picture."""
    config = transformers.ViTConfig(**VISION, id2label=dict(enumerate(labels)))
    model = transformers.ViTForImageClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor(biases)
    model.save_pretrained(folder)
    pictures_of(folder)
    return folder


def predictor(folder, kind, head):
    """Layers ``head`` behind CLIP's features, in the layout of simple-aesthetics-predictor."""
    transformers.CLIPVisionModelWithProjection(
        transformers.CLIPVisionConfig(**VISION, projection_dim=4)
    ).save_pretrained(folder)
    file = folder / "model.safetensors"
    save_file(load_file(file) | head, file, {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    changed = {"architectures": [kind], "model_type": "aesthetics_predictor", "auto_map": {"AutoModel": "own.Code"}}
    (folder / "config.json").write_text(json.dumps(config | changed))
    pictures_of(folder)
    return folder


def scored(folder):
    found = scorers.load(folder, PICTURES[:2]).scores(PICTURES, PROMPTS)
    return {name: (one.of.tolist(), one.training) for name, one in found.items()}


def test_clip_scores_the_prompt_and_the_likeness(tmp_path):
    found = scored(clip(tmp_path / "clip"))
    assert found["text"] == (pytest.approx([0.6, 0.6, 0.6]), None)
    assert found["pictures"] == (pytest.approx([1.0, 1.0, 1.0]), pytest.approx(1.0))


def test_likeness_is_the_mean_cosine_with_the_training_pictures():
    like = scorers.Likeness(torch.tensor([[2.0, 0.0], [0.0, 1.0], [3.0, 4.0]]))
    found = like(torch.tensor([[5.0, 0.0], [0.0, 0.5]]))
    assert found.of.tolist() == pytest.approx([1.6 / 3, 1.8 / 3])
    assert found.training == pytest.approx((0.0 + 0.6 + 0.8) / 3)


@pytest.mark.parametrize("kind, config", [
    (transformers.ViTModel, transformers.ViTConfig), (transformers.Dinov2Model, transformers.Dinov2Config),
])  # fmt: skip
def test_dino_scores_the_likeness_alone(tmp_path, kind, config):
    more = {"add_pooling_layer": False} if kind is transformers.ViTModel else {}
    sizes = {name: value for name, value in VISION.items() if name != "intermediate_size"}
    model = kind(config(**sizes), **more)
    model.save_pretrained(tmp_path / "dino")
    pictures_of(tmp_path / "dino")
    ((scores, training),) = scored(tmp_path / "dino").values()
    seen = model.eval()(torch.stack([_pixels(one) for one in PICTURES])).last_hidden_state[:, 0].detach()
    unit = torch.nn.functional.normalize(seen, dim=1)
    assert scores == pytest.approx((unit @ unit[:2].T).mean(1).tolist(), abs=1e-5)
    assert training == pytest.approx(float(unit[0] @ unit[1]), abs=1e-5)


def _pixels(picture):
    side = {"height": 8, "width": 8}
    processor = transformers.CLIPImageProcessorPil(size={"shortest_edge": 8}, crop_size=side)
    return processor(images=[picture], return_tensors="pt")["pixel_values"][0]


@pytest.mark.parametrize("labels, biases, name, score", [
    (["aesthetic", "not_aesthetic"], [math.log(3), 0.0], "aesthetic", 75),
    (["lq", "hq"], [math.log(3), 0.0], "hq", 25),
    (["score"], [6.5], "score", 6.5),
])  # fmt: skip
def test_a_classifier_scores_the_better_label(tmp_path, labels, biases, name, score):
    found = scored(classifier(tmp_path / "taste", labels, biases))
    assert found == {name: (pytest.approx([score] * 3), pytest.approx(score))}


@pytest.mark.parametrize("labels", [["cat", "dog"], ["bad", "worst"], ["a", "b", "c"]])
def test_a_classifier_of_something_else_is_refused(tmp_path, labels):
    with pytest.raises(ModelError, match="do not say which picture is the better one") as error:
        scored(classifier(tmp_path / "taste", labels, [0.0] * len(labels)))
    assert "not_aesthetic" in error.value.do


def linear(weight, bias):
    return {"weight": torch.tensor(weight), "bias": torch.tensor(bias)}


@pytest.mark.parametrize("kind, score", [("AestheticsPredictorV2Linear", 0.0), ("AestheticsPredictorV2ReLU", 2.0)])
def test_the_layers_of_an_aesthetic_predictor(tmp_path, kind, score):
    """The first gives -1 twice, which a ReLU makes 0; the second adds both to 2. V2ReLU's numbers have gaps."""
    first, second = linear([[0.0] * 4] * 2, [-1.0, -1.0]), linear([[1.0, 1.0]], [2.0])
    head = {f"layers.{place}.{name}": one for place, layer in ((3, first), (10, second)) for name, one in layer.items()}
    assert scored(predictor(tmp_path / "laion", kind, head)) == {"score": ([score] * 3, score)}


def test_the_first_aesthetic_predictor_has_one_layer_on_features_of_length_one(tmp_path):
    head = {f"predictor.{name}": one for name, one in linear([[0.0] * 4], [5.5]).items()}
    folder = predictor(tmp_path / "laion", "AestheticsPredictorV1", head)
    assert scored(folder) == {"score": ([5.5] * 3, 5.5)}
    file = folder / "model.safetensors"
    save_file(load_file(file) | {"predictor.weight": torch.ones(1, 4)}, file, {"format": "pt"})
    assert all(3.5 - 1e-5 <= one <= 7.5 + 1e-5 for one in scored(folder)["score"][0])  # |sum of a unit vector| <= 2


def test_other_folders_are_refused_with_what_is_accepted(tmp_path):
    config = transformers.BertConfig(
        hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1, vocab_size=9
    )
    transformers.BertModel(config).save_pretrained(tmp_path / "bert")
    with pytest.raises(ModelError, match="bert is of the kind BertModel, which gives pictures no score") as error:
        scored(tmp_path / "bert")
    assert all(name in error.value.do for name in ("CLIPModel", "DINOv2", "AestheticsPredictorV1"))

    with pytest.raises(ModelError, match="There is no folder"):
        scored(tmp_path / "none")

    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text('{"architectures": ["CLIPModel"]}')
    (pickled / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ModelError, match="pickled weights, which can run code"):
        scored(pickled)


def test_a_model_that_lacks_weights_is_refused(tmp_path):
    folder = clip(tmp_path / "clip")
    weights = load_file(folder / "model.safetensors")
    weights.pop("text_projection.weight")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match="clip lacks 1 weights: text_projection.weight"):
        scored(folder)
