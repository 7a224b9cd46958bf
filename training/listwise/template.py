"""Which templates an LLM can be trained with."""

from __future__ import annotations

from rankers.errors import ConfigError
from rankers.listwise.template import Template, load_template
from training.listwise.settings import ListwiseSettings

ONE_IDENTIFIER = "setwise"
"""The packaged template that asks for the best identifier alone."""


def trainable_template(settings: ListwiseSettings) -> Template:
    """Load the template of a recipe.

    Parameters
    ----------
    settings
        The recipe.

    Returns
    -------
    Template
        One whose first identifier is read, and whose answer is what the language-model loss teaches, if there is one.

    Raises
    ------
    ConfigError
        If there is no such template, or it cannot be trained with; says what to do.
    """
    template = load_template(settings.template)
    if template.written:
        raise ConfigError(
            f"template {template.name!r}: its answers are written out, and training reads one identifier; take first"
        )
    if template.shows_scores:
        raise ConfigError(
            f"template {template.name!r}: it shows scores of the first stage, which training lists do not have; take "
            "first"
        )
    if settings.language_model_weight and (template.name == ONE_IDENTIFIER or not template.answer.endswith("[")):
        raise ConfigError(
            f"template {template.name!r}: the language-model loss teaches answers such as [B] > [A], which it does not "
            "ask for; set language_model_weight to 0, or take first"
        )
    return template
