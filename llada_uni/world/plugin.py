"""What the small world adds to the program, by name: names to "module:attribute", imported when first used (plugins.py)."""

STAGES = {
    "patch_tokenizer": "llada_uni.world.training.patch_tokenizer:PatchTokenizerOptions",
    "world_backbone": "llada_uni.world.training.stage:WorldBackboneOptions",
}
SOURCES = {"world": "llada_uni.world.data.world_records:open_world"}
IMAGES = {
    "world": "llada_uni.world.data.pictures:WorldPictures",
    "crowded": "llada_uni.world.data.pictures:CrowdedPictures",
}
WORDS = {"world": "llada_uni.world.data.vocabulary:world_words"}
REWARDS = {
    "world": "llada_uni.world.training.rewards:judge_sample",
    "world_parts": "llada_uni.world.training.rewards:judge_parts",
}
_SUITES = ("geneval", "understand", "wise", "text", "edit", "intergen", "dialogue", "robust", "decoder")
SUITES = dict.fromkeys(_SUITES, "llada_uni.world.evaluation.suites:WorldSuite")
COMMANDS = {"demo": "llada_uni.world.cli:demo", "data world": "llada_uni.world.cli:world"}
