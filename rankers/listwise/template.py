"""Prompt templates: data, not code, because each belongs to the checkpoint that was trained with it."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

from rankers.errors import ConfigError
from rankers.listwise.labels import LETTERS

FOLDER = Path(__file__).parent / "templates"
_FIELD = re.compile(r"\{(\w*)\}")


class Template(BaseModel):
    """The wording of a listwise prompt.

    `user` holds ``{query}`` and ``{passages}`` and may hold ``{num}``; `passage`, one line per candidate, holds
    ``{label}`` and ``{text}``: a label after its text is read by a causal model that has seen the passage. ``{score}``,
    the document's score in the first stage, may follow a label and its text.
    `answer` is what the model's answer begins with: directly before a label, whose logits are read, or, where the
    answer is `written`, anything or nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    system: str
    user: str
    passage: str
    written: bool = False
    answer: str
    labels: tuple[str, ...] = LETTERS

    @field_validator("user")
    @classmethod
    def _user_has_query_and_passages(cls, value: str) -> str:
        found = _FIELD.findall(value)
        if "query" not in found or found.count("passages") != 1 or not set(found) <= {"query", "passages", "num"}:
            raise ValueError(f"needs {{query}}, {{passages}} once, and no field but {{num}} beside them; has {found}")
        return value

    @field_validator("passage")
    @classmethod
    def _passage_has_label_and_text(cls, value: str) -> str:
        found = _FIELD.findall(value)
        if found not in (["label", "text"], ["text", "label"], ["label", "text", "score"]):
            raise ValueError(
                f"needs {{label}} and {{text}} once each, and may have {{score}} where it comes after both; has {found}"
            )
        return value

    @field_validator("answer")
    @classmethod
    def _answer_comes_before_a_label(cls, value: str, info: ValidationInfo) -> str:
        if _FIELD.search(value) or not (value or info.data.get("written")):
            raise ValueError(
                "needs the text that comes directly before a label, such as '['; only a written answer may begin freely"
            )
        return value

    @field_validator("labels")
    @classmethod
    def _labels_differ(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if len(value) < 2 or len(set(value)) < len(value) or not all(value):
            raise ValueError("needs at least two labels, all different and none empty")
        return value

    @property
    def shows_scores(self) -> bool:
        """Whether a passage's line has its score in the first stage."""
        return "{score}" in self.passage


def load_template(source: str | Path) -> Template:
    """Read a template.

    Parameters
    ----------
    source
        Name of a packaged template (``first``), or path of a YAML file.

    Returns
    -------
    Template
        Its fields checked; the tokenizer is checked by `rankers.listwise.prompt.PromptBuilder`.

    Raises
    ------
    ConfigError
        If there is no such template, or a field is missing, unknown or wrong.

    Examples
    --------
    >>> load_template("first").answer
    '['
    """
    path = (
        FOLDER / f"{source}.yaml" if isinstance(source, str) and (FOLDER / f"{source}.yaml").is_file() else Path(source)
    )
    if not path.is_file():
        packaged = ", ".join(sorted(file.stem for file in FOLDER.glob("*.yaml")))
        raise ConfigError(f"no template {str(source)!r}: neither a file nor a packaged one ({packaged})")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Template.model_validate(content)
    except yaml.YAMLError as error:
        raise ConfigError(f"template {path} is not YAML: {error}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise ConfigError(f"template {path}: {where}: {first['msg']}") from error
