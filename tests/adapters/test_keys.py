"""Names: the reference trainer's key lists, the original UNet layout, and one path from every dialect's key."""

from __future__ import annotations

import pytest

from lora_studio.adapters import keys
from tests.adapters.adapter_samples import FAMILIES, golden


@pytest.mark.parametrize("family", FAMILIES)
def test_golden_stems_are_read_as_paths_and_written_back(family):
    """A wrongly split underscore, or a block renumbered wrongly, would leave modules out in another program."""
    stems = {key.partition(".")[0] for key in golden(family)}
    paths = {keys.path_of(stem) for stem in stems}
    assert len(paths) == len(stems) and None not in paths
    assert {keys.to_kohya(path, family) for path in paths} == stems


def test_golden_paths_are_the_pipelines_own():
    paths = {family: {keys.path_of(key.partition(".")[0]) for key in golden(family)} for family in FAMILIES}
    assert "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_out.0" in paths["sd1"]
    assert "text_encoder.text_model.encoder.layers.11.self_attn.out_proj" in paths["sd1"]
    assert "unet.mid_block.attentions.0.transformer_blocks.9.ff.net.0.proj" in paths["sdxl"]
    assert "unet.up_blocks.1.attentions.2.proj_in" in paths["sdxl"]
    assert "text_encoder_2.text_model.encoder.layers.31.mlp.fc2" in paths["sdxl"]
    attention = [
        path for path in paths["sdxl"] if path.startswith("unet.") and (".attn1.to_" in path or ".attn2.to_" in path)
    ]
    assert len(attention) == 560


@pytest.mark.parametrize(
    ("path", "family", "ldm"),
    [
        ("conv_in", "sd1", "input_blocks.0.0"),
        ("down_blocks.0.resnets.0.conv1", "sd1", "input_blocks.1.0.in_layers.2"),
        ("down_blocks.0.attentions.1.proj_in", "sd1", "input_blocks.2.1.proj_in"),
        ("down_blocks.0.downsamplers.0.conv", "sd1", "input_blocks.3.0.op"),
        ("down_blocks.3.resnets.1.time_emb_proj", "sd1", "input_blocks.11.0.emb_layers.1"),
        ("mid_block.resnets.0.norm1", "sd1", "middle_block.0.in_layers.0"),
        ("mid_block.attentions.0.transformer_blocks.0.norm1", "sd1", "middle_block.1.transformer_blocks.0.norm1"),
        ("mid_block.resnets.1.conv2", "sdxl", "middle_block.2.out_layers.3"),
        ("up_blocks.0.upsamplers.0.conv", "sd1", "output_blocks.2.1.conv"),
        ("up_blocks.1.upsamplers.0.conv", "sd1", "output_blocks.5.2.conv"),
        ("up_blocks.0.upsamplers.0.conv", "sdxl", "output_blocks.2.2.conv"),
        ("up_blocks.2.resnets.2.conv_shortcut", "sdxl", "output_blocks.8.0.skip_connection"),
        ("conv_norm_out", "sd1", "out.0"),
        ("conv_out", "sd1", "out.2"),
        ("time_embedding.linear_2", "sd1", "time_embed.2"),
        ("add_embedding.linear_1", "sdxl", "label_emb.0.0"),
    ],
)
def test_original_layout_both_ways(path, family, ldm):
    assert keys.to_ldm(path, family) == ldm
    assert keys.from_ldm(ldm) == path


@pytest.mark.parametrize(
    "path",
    [
        "down_blocks.1.resnets.0.conv_shortcut",
        "down_blocks.2.downsamplers.0.conv",
        "up_blocks.0.upsamplers.0.conv",
        "conv_in",
        "conv_out",
        "time_embedding.linear_1",
        "mid_block.resnets.1.time_emb_proj",
        "add_embedding.linear_2",
    ],
)
@pytest.mark.parametrize("family", ["sd1", "sdxl", "starter"])
def test_convolution_stems_come_back(path, family):
    """LoCon names hold the words that plain attention names do not."""
    assert keys.path_of(keys.to_kohya(f"unet.{path}", family)) == f"unet.{path}"


Q = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
OUT = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0"
TE = "text_encoder.text_model.encoder.layers.0.self_attn.q_proj"


@pytest.mark.parametrize(
    ("key", "path", "role"),
    [
        ("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight", Q, "down"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.alpha", Q, "alpha"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.dora_scale", Q, "dora_scale"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.hada_w1_a", Q, "hada_w1_a"),
        ("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lokr_w2", Q, "lokr_w2"),
        (f"{Q}.lora_A.weight", Q, "down"),
        (f"{Q}.lora_B.default.weight", Q, "up"),
        (f"{Q}.lora.up.weight", Q, "up"),
        (f"{OUT}.lora_magnitude_vector", OUT, "magnitude"),
        ("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight", OUT, "up"),
        ("down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight", Q, "down"),
        ("base_model.model.down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight", Q, "down"),
        ("base_model.model.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", TE, "down"),
        ("base_model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight", TE, "down"),
        ("lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", TE, "down"),
        ("lora_te1_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight", TE, "down"),
        ("text_encoder.encoder.layers.0.self_attn.q_proj.lora_A.weight", TE, "down"),
        ("text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_linear_layer.up.weight", TE, "up"),
        # wrappers left in names; OneTrainer's original names; ComfyUI's prefixes; LyCORIS alone
        (f"unet.base_model.model.{Q[5:]}.lora_A.weight", Q, "down"),
        (f"unet.{Q}.lora_A.weight", Q, "down"),
        (f"base_model.model.unet.base_model.model.{Q[5:]}.lora_B.weight", Q, "up"),
        ("unet.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_down.weight", Q, "down"),
        ("diffusion_model.input_blocks.4.1.transformer_blocks.0.attn1.to_q.lora_A.weight", Q, "down"),
        (f"model.diffusion_model.{Q[5:]}.lora_up.weight", Q, "up"),
        ("text_encoders.clip_l.transformer.text_model.encoder.layers.0.self_attn.q_proj.lora_A.weight", TE, "down"),
        ("lycoris_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.alpha", Q, "alpha"),
        ("lora_te2_text_projection.lora_up.weight", "text_encoder_2.text_projection", "up"),
    ],
)
def test_every_dialects_key_means_the_same_module(key, path, role):
    assert keys.collect({key: 1}) == ({path: {role: 1}}, [])


def test_live_paths_of_transformers_5_get_their_prefix_back():
    assert keys.canonical("text_encoder.encoder.layers.0.mlp.fc1") == "text_encoder.text_model.encoder.layers.0.mlp.fc1"
    assert (
        keys.canonical("text_encoder_2.text_model.encoder.layers.0.mlp.fc1")
        == "text_encoder_2.text_model.encoder.layers.0.mlp.fc1"
    )
    assert keys.canonical("text_encoder_2.text_projection") == "text_encoder_2.text_projection"


@pytest.mark.parametrize(
    "stem",
    [
        "lora_unet_double_blocks_0_img_attn_qkv",
        "lora_unet_blocks_0_self_attn_q_proj",
        "lora_unet_down_blocks_9_attentions_0_proj_in",
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn3_to_q",
        "lora_te_text_model_encoder_layers_99_mlp_fc1",
        "unet.down_blocks.0.resnets.0.norm1",
    ],
)
def test_a_name_that_no_model_has_is_no_path(stem):
    assert keys.path_of(stem) is None


def test_keys_that_are_none_of_ours_are_told_apart():
    """A module named twice in two dialects must not be merged silently into one."""
    same = "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight"
    modules, unknown = keys.collect({f"{Q}.lora_A.weight": 1, same: 2, "x.diff": 3, "foo.lora_A.weight": 4})
    assert modules == {Q: {"down": 1}}
    assert len(unknown) == 3
