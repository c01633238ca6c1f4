"""The studio's look: neutral greys, so that pictures keep their colours, and one accent colour for controls. It loads
no font or file from other servers.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

VIRIDIAN = gr.themes.Color(
    name="viridian",
    c50="#edf7f4",
    c100="#d2ece4",
    c200="#a8dacb",
    c300="#76c1ac",
    c400="#48a48b",
    c500="#2a876f",
    c600="#1b6d59",
    c700="#165849",
    c800="#14463b",
    c900="#113a32",
    c950="#06211c",
)
GREY = gr.themes.Color(
    name="grey",
    c50="#fafafa",
    c100="#f4f4f3",
    c200="#e6e6e4",
    c300="#d2d2cf",
    c400="#a2a29e",
    c500="#6c6c68",
    c600="#545451",
    c700="#3a3a38",
    c800="#262625",
    c900="#1b1b1a",
    c950="#131312",
)
TEXT = gr.themes.Size(name="text", xxs="13px", xs="13px", sm="13px", md="15px", lg="15px", xl="17px", xxl="22px")
"""The sizes of text, as in ``styles/base.css``."""
SANS = ("-apple-system", "BlinkMacSystemFont", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "Liberation Mono", "monospace")


def theme() -> gr.themes.Base:
    """The theme. Cards and their content are styled by ``styles``."""
    return gr.themes.Base(
        primary_hue=VIRIDIAN,
        secondary_hue=GREY,
        neutral_hue=GREY,
        radius_size="md",
        text_size=TEXT,
        font=SANS,
        font_mono=MONO,
    ).set(
        body_background_fill="*neutral_100",
        body_background_fill_dark="*neutral_950",
        background_fill_primary="white",
        background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_50",
        background_fill_secondary_dark="*neutral_800",
        body_text_color="*neutral_900",
        body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500",
        body_text_color_subdued_dark="*neutral_400",
        border_color_primary="*neutral_200",
        border_color_primary_dark="*neutral_700",
        block_background_fill="transparent",
        block_background_fill_dark="transparent",
        block_border_width="0px",
        block_border_width_dark="0px",
        block_padding="0px",
        block_shadow="none",
        block_shadow_dark="none",
        block_title_text_color="*neutral_800",
        block_title_text_color_dark="*neutral_200",
        block_title_text_weight="550",
        block_title_text_size="*text_sm",
        block_label_background_fill="transparent",
        block_label_background_fill_dark="transparent",
        block_label_border_width="0px",
        block_label_border_width_dark="0px",
        block_info_text_size="*text_sm",
        block_info_text_color="*neutral_500",
        block_info_text_color_dark="*neutral_400",
        form_gap_width="0px",
        layout_gap="14px",
        input_background_fill="white",
        input_background_fill_dark="*neutral_950",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_400",
        input_border_width="1px",
        input_border_color="#8d8d89",
        input_border_color_dark="*neutral_500",
        input_border_color_focus="*primary_500",
        input_border_color_focus_dark="*primary_400",
        input_shadow_focus="0 0 0 3px *primary_100",
        input_shadow_focus_dark="0 0 0 3px *primary_900",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        button_primary_text_color_dark="white",
        button_secondary_background_fill="white",
        button_secondary_background_fill_dark="*neutral_800",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_hover_dark="*neutral_700",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="*neutral_700",
        button_border_width="1px",
        button_large_text_weight="550",
        button_small_text_weight="500",
        button_transition="background-color .12s",
        checkbox_background_color_dark="*neutral_950",
        checkbox_border_color_dark="*neutral_500",
        checkbox_background_color_selected="*primary_600",
        checkbox_background_color_selected_dark="*primary_500",
        checkbox_border_color_selected="*primary_600",
        checkbox_border_color_selected_dark="*primary_500",
        slider_color="*primary_500",
        slider_color_dark="*primary_400",
        loader_color="*primary_500",
        loader_color_dark="*primary_400",
        color_accent="*primary_500",
        border_color_accent="*primary_500",
        border_color_accent_dark="*primary_400",
    )


def html(value: str = "", **how: Any) -> gr.HTML:
    """HTML styled by ``styles`` alone, without gradio's rules for running text."""
    return gr.HTML(value, apply_default_css=False, **how)
