"""The learning rate over a run."""

from trainer.options import Recipe


def learning_rate(recipe: Recipe, step: int) -> float:
    """The rate of a step, counted from 1: linear warm-up, then constant, or linear to 0 after the last step."""
    if step <= recipe.warmup_steps:
        return recipe.learning_rate * step / recipe.warmup_steps
    if recipe.schedule == "constant":
        return recipe.learning_rate
    left = (recipe.steps - step + 1) / max(1, recipe.steps - recipe.warmup_steps)
    return recipe.learning_rate * max(0.0, left)
