"""Recipes: YAML files that become typed options of a training stage."""
