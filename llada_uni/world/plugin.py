"""What the small world adds to the program, by name: names to "module:attribute", imported when first used (plugins.py)."""

STAGES = {
    "patch_tokenizer": "llada_uni.world.training.patch_tokenizer:PatchTokenizerOptions",
    "world_backbone": "llada_uni.world.training.stage:WorldBackboneOptions",
}
