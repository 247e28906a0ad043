"""The model in the clothes of other libraries: diffusers, transformers, ComfyUI. Nothing of the model is written twice."""
