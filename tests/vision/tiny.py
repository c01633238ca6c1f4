"""Tiny models with random weights, of the architectures and in the layout of the real ones."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
import transformers
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, pre_tokenizers, trainers
from tokenizers import models as tokenizer_models

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] a boat house in the harbour sea tree on hill".split()
TAGS = (
    (9, "general", 9),
    (9, "sensitive", 9),
    (1, "1girl", 0),
    (2, "long_hair", 0),
    (3, ">_<", 0),
    (4, "watercolor_(medium)", 0),
    (5, "hatsune_miku", 4),
    (6, "rose_(flower)", 0),
)
"""Id, name and category."""


def blip(folder: Path) -> Path:
    """As on the hub, the tokens that begin and end a caption lie beyond the tokenizer's vocabulary or are special."""
    folder.mkdir(parents=True)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    pictures = transformers.BlipImageProcessor(size={"height": 32, "width": 32})
    text = {
        "vocab_size": len(WORDS) + 2, "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": len(WORDS), "eos_token_id": 2, "pad_token_id": 0, "sep_token_id": 3,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 16, "projection_dim": 16,
    }  # fmt: skip
    torch.manual_seed(3)
    config = transformers.BlipConfig(
        text_config=text, vision_config=vision, projection_dim=16, image_text_hidden_size=16
    )
    return _saved(
        folder,
        transformers.BlipForConditionalGeneration(config),
        transformers.BlipProcessor(pictures, tokenizer),
    )


def florence2(folder: Path) -> Path:
    """The layout of florence-community's: a processor_config.json with what its post-processing needs."""
    tokenizer = _tokenizer(
        ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>"],
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        extra_special_tokens={"image_token": "<image>"},
    )
    pictures = transformers.CLIPImageProcessor(size={"height": 64, "width": 64}, do_center_crop=False)
    pictures.image_seq_length = 5
    text = {
        "model_type": "bart", "vocab_size": len(tokenizer), "d_model": 16, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16,
        "max_position_embeddings": 256, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2,
        "decoder_start_token_id": 2, "forced_eos_token_id": 2,
    }  # fmt: skip
    vision = {
        "depths": [1] * 4, "embed_dim": [8] * 4, "num_heads": [2] * 4, "num_groups": [2] * 4, "window_size": 2,
        "projection_dim": 16,
    }  # fmt: skip
    torch.manual_seed(1)
    config = transformers.Florence2Config(text_config=text, vision_config=vision, image_token_id=5)
    processor = transformers.Florence2Processor(pictures, tokenizer, post_processor_config={"pure_text": {}})
    return _saved(folder, transformers.Florence2ForConditionalGeneration(config), processor)


def qwen2(folder: Path) -> Path:
    """The layout of Qwen2-VL's: a chat template in a file of its own, and no saved processor."""
    vision = {
        "depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 1, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    return _qwen(folder, transformers.Qwen2VLForConditionalGeneration, transformers.Qwen2VLConfig, vision)


def qwen3(folder: Path) -> Path:
    """The layout of Qwen3-VL's, with the configuration of its part for videos."""
    vision = {
        "depth": 2, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "patch_size": 14,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "out_hidden_size": 16, "num_position_embeddings": 16,
        "deepstack_visual_indexes": [0],
    }  # fmt: skip
    _qwen(folder, transformers.Qwen3VLForConditionalGeneration, transformers.Qwen3VLConfig, vision)
    (folder / "video_preprocessor_config.json").write_text('{"video_processor_type": "Qwen3VLVideoProcessor"}')
    return folder


def _qwen(folder: Path, kind: type, config: type, vision: dict[str, object]) -> Path:
    tokenizer = _tokenizer(
        "<|endoftext|> <|im_start|> <|im_end|> <|vision_start|> <|vision_end|> <|image_pad|> <|video_pad|>".split(),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )
    pictures = transformers.Qwen2VLImageProcessor(size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56})
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "max_position_embeddings": 256,
        "bos_token_id": 0, "eos_token_id": 2,
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4},
    }  # fmt: skip
    torch.manual_seed(4)
    places = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 3, "vision_end_token_id": 4}
    _large(kind(config(text_config=text, vision_config=vision, **places))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pictures.save_pretrained(folder)
    template = (
        "{% for said in messages %}<|im_start|>{{ said.role }}\n{% for part in said.content %}"
        "{% if part.type == 'image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ part.text }}{% endif %}"
        "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template}))
    return folder


def wd14(folder: Path, side: int = 8, tags: Sequence[tuple[int, str, int]] = TAGS) -> Path:
    """A tagger whose score of tag i is the sigmoid of weights times the mean blue, green and red: a picture's colour
    decides.
    """
    folder.mkdir(parents=True)
    rows = [f"{number},{name},{category},100" for number, name, category in tags]
    (folder / "selected_tags.csv").write_text("\n".join(["tag_id,name,category,count", *rows, ""]))
    weights = np.linspace(-0.04, 0.04, 3 * len(tags), dtype=np.float32).reshape(3, len(tags))
    nodes = [
        helper.make_node("ReduceMean", ["input"], ["mean"], axes=[1, 2], keepdims=0),
        helper.make_node("MatMul", ["mean", "weights"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["output"]),
    ]
    return _onnx(folder / "model.onnx", nodes, {"weights": weights}, ["batch", side, side, 3], ["batch", len(tags)])


def u2net(path: Path, side: int = 16) -> Path:
    """A segmenter that finds what is red: the sigmoid of the first channel. Like the real ones it has several outputs,
    of which the first is the map.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    kernel = np.array([1, -1, -1], np.float32).reshape(1, 3, 1, 1)
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["side"]),
        helper.make_node("Sigmoid", ["side"], ["output"]),
    ]
    return _onnx(path, nodes, {"kernel": kernel}, [1, 3, side, side], [1, 1, side, side], more=["side"])


def _onnx(
    path: Path,
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    taken: list[int | str],
    given: list[int | str],
    more: Sequence[str] = (),
) -> Path:
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, taken)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, given) for name in ("output", *more)],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def _tokenizer(special: list[str], **named: object) -> transformers.PreTrainedTokenizerFast:
    """Bytes and a few pairs of them."""
    tokenizer = Tokenizer(tokenizer_models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = [chr(code) for code in range(32, 127)] + ["Ġ", "Ċ"]
    trainer = trainers.BpeTrainer(special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["a boat in the harbour"], trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, **named)


def _saved(folder: Path, model: transformers.PreTrainedModel, processor: transformers.ProcessorMixin) -> Path:
    _large(model).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _large(model: transformers.PreTrainedModel) -> transformers.PreTrainedModel:
    """Weights so large that the picture changes the text."""
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.5)
    return model
