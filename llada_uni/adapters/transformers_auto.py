"""Makes transformers know our classes: `import llada_uni.adapters.transformers_auto`, and no remote code is needed.

"model_type" of a config.json ("llada2_moe", or the published "llada2_moe_veomni") -> AutoConfig, AutoModel,
AutoModelForCausalLM (also ImageTextToText and MultimodalLM), AutoTokenizer and AutoProcessor -> our classes. A directory whose
config names remote code (`auto_map`) gets ours as well, unless the caller passes trust_remote_code=True.

    import llada_uni.adapters.transformers_auto
    model = AutoModelForCausalLM.from_pretrained("models/world")
    processor = AutoProcessor.from_pretrained("models/world")
"""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoProcessor,
    AutoTokenizer,
)
from transformers.conversion_mapping import register_checkpoint_conversion_mapping

from llada_uni.adapters.transformers_model import (
    CONVERSION,
    LLaDA2MoeConfig,
    LLaDA2MoeModel,
    LLaDA2MoeModelLM,
    LLaDA2MoePublishedConfig,
)
from llada_uni.adapters.transformers_processor import LLaDA2UniProcessor
from llada_uni.adapters.transformers_tokenizer import LLaDA2UniTokenizer

__all__ = ["LLaDA2MoeConfig", "LLaDA2MoeModel", "LLaDA2MoeModelLM", "LLaDA2UniProcessor", "LLaDA2UniTokenizer", "register"]


def register() -> None:
    """Done by the import; once more does no harm."""
    for config in (LLaDA2MoeConfig, LLaDA2MoePublishedConfig):
        AutoConfig.register(config.model_type, config, exist_ok=True)
        AutoModel.register(config, LLaDA2MoeModel, exist_ok=True)
        for kind in (AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM):
            kind.register(config, LLaDA2MoeModelLM, exist_ok=True)
        AutoTokenizer.register(config, fast_tokenizer_class=LLaDA2UniTokenizer, exist_ok=True)
        AutoProcessor.register(config, LLaDA2UniProcessor, exist_ok=True)
        register_checkpoint_conversion_mapping(config.model_type, CONVERSION, overwrite=True)


register()
