"""HER2 status from an H&E whole-slide image, with the evidence (Oliveira et al., 2020). Research use only.

Example:
    >>> import he2her2
    >>> config = he2her2.load_config("default")
    >>> model = he2her2.load_model("bundled", config)
    >>> model.notices[0][:19]
    'trained on phantoms'
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from he2her2.config import load_config
    from he2her2.evaluation import Question, evaluate
    from he2her2.models import load_slide_model as load_model
    from he2her2.pipeline import predict
    from he2her2.slides import open_slide

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # ONNX Runtime tells its makers of each use, unless told before

__version__ = "0.1.0"
__all__ = ["Question", "evaluate", "load_config", "load_model", "open_slide", "predict"]

_HOMES = {
    "Question": ("he2her2.evaluation", "Question"),
    "evaluate": ("he2her2.evaluation", "evaluate"),
    "load_config": ("he2her2.config", "load_config"),
    "load_model": ("he2her2.models", "load_slide_model"),
    "open_slide": ("he2her2.slides", "open_slide"),
    "predict": ("he2her2.pipeline", "predict"),
}


def __getattr__(name: str) -> object:
    """Load a function of the face when it is first asked for: `import he2her2` itself takes no time."""
    if name not in _HOMES:
        raise AttributeError(f"module 'he2her2' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
