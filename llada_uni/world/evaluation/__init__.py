"""Evaluation: suites of seeded samples, asked through the model's public calls, judged by the world's
checker."""

from llada_uni.world.evaluation.report import format_table
from llada_uni.world.evaluation.suites import DEFAULT_SETTINGS, SUITES, run_suites

__all__ = ["DEFAULT_SETTINGS", "SUITES", "format_table", "run_suites"]
