"""Measures a model of class-labeled photographs (recipes/photos) with a judge that sees pixels alone; a wing of its own."""
