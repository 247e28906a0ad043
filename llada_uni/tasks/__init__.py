"""The tasks of the model, one file each; `llada_uni.model.UniModel` is their front."""
