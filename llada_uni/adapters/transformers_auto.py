"""Makes transformers know our classes: `import llada_uni.adapters.transformers_auto`, and no remote code is needed.

What flows through: "model_type": "llada2_moe" of a config.json -> AutoConfig, AutoModel, AutoModelForCausalLM and
AutoProcessor -> our classes. A directory whose config names remote code (`auto_map`) gets ours as well, unless the caller
passes trust_remote_code=True.

    import llada_uni.adapters.transformers_auto
    model = AutoModelForCausalLM.from_pretrained("models/world")
    processor = AutoProcessor.from_pretrained("models/world")
"""

from __future__ import annotations

from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoProcessor
from transformers.conversion_mapping import register_checkpoint_conversion_mapping

from llada_uni.adapters.transformers_model import (
    CONVERSION,
    MODEL_TYPE,
    LLaDA2MoeConfig,
    LLaDA2MoeModel,
    LLaDA2MoeModelLM,
)
from llada_uni.adapters.transformers_processor import LLaDA2UniProcessor

__all__ = ["LLaDA2MoeConfig", "LLaDA2MoeModel", "LLaDA2MoeModelLM", "LLaDA2UniProcessor", "register"]


def register() -> None:
    """Done by the import; once more does no harm."""
    AutoConfig.register(MODEL_TYPE, LLaDA2MoeConfig, exist_ok=True)
    AutoModel.register(LLaDA2MoeConfig, LLaDA2MoeModel, exist_ok=True)
    AutoModelForCausalLM.register(LLaDA2MoeConfig, LLaDA2MoeModelLM, exist_ok=True)
    AutoProcessor.register(LLaDA2MoeConfig, LLaDA2UniProcessor, exist_ok=True)
    register_checkpoint_conversion_mapping(MODEL_TYPE, CONVERSION, overwrite=True)


register()
