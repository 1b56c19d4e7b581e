"""The settings of the method, their presets, and how a file or the command line changes them."""

from he2her2.config.reading import chosen_keys, gather, load_config, settle, take_preset, to_toml
from he2her2.config.settings import (
    OR_NONE,
    PAPER_THRESHOLD,
    PRESETS,
    Adaptive,
    Config,
    Networks,
    Quality,
    Runtime,
    Scoring,
    Selection,
    Spacing,
    Tiling,
    Tissue,
    with_later_settings,
)

__all__ = [
    "OR_NONE",
    "PAPER_THRESHOLD",
    "PRESETS",
    "Adaptive",
    "Config",
    "Networks",
    "Quality",
    "Runtime",
    "Scoring",
    "Selection",
    "Spacing",
    "Tiling",
    "Tissue",
    "chosen_keys",
    "gather",
    "load_config",
    "settle",
    "take_preset",
    "to_toml",
    "with_later_settings",
]
