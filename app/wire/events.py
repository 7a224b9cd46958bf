"""What search apps report, as it looks on the wire: clicks, dwell times, conversions, impressions of their own."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    AliasChoices,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    StringConstraints,
    Tag,
)
from pydantic_core import PydanticCustomError

from rankers.errors import InvalidInputError
from rankers.events import LIST, Layout

CLICK, DWELL, CONVERSION, IMPRESSION = "click", "dwell", "conversion", "impression"
EVENT_TYPES = frozenset({CLICK, DWELL, CONVERSION, IMPRESSION})
"""Values of `type`, which pydantic puts into the path of a field."""

QueryText = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
"""Text that says something."""
# PostgreSQL stores every character but NUL.
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[^\x00]+$")]


def _layout(text: str) -> str:
    try:
        return str(Layout.parse(text))
    except InvalidInputError:
        raise PydanticCustomError(
            "layout", "Input should be 'list', or 'grid:COLUMNS' with 2 columns or more"
        ) from None


LayoutName = Annotated[str, AfterValidator(_layout)]
SessionKey = Annotated[Identifier, Field(description="Ties impressions of one visit together; stored as a hash.")]
UserKey = Annotated[Identifier, Field(description="Ties impressions of one person together; stored as a hash.")]
Position = Annotated[int, Field(ge=1, le=2**31 - 1)]


class _SentOutcome(BaseModel):
    id: Identifier | None = Field(None, description="Makes sending it twice harmless; made up when not given.")
    impression_id: Identifier
    document_id: Identifier
    position: Position | None = Field(None, description="Where it was shown; known from the impression.")
    happened_at: AwareDatetime | None = Field(
        None,
        validation_alias=AliasChoices("happened_at", "clicked_at"),
        description="With a time zone; now when not given. Also called `clicked_at`.",
    )


class SentClick(_SentOutcome):
    """A click; what is sent without a `type` is one."""

    type: Literal["click"] = "click"


class SentDwell(_SentOutcome):
    """How long a clicked document was looked at."""

    type: Literal["dwell"]
    seconds: FiniteFloat = Field(ge=0)


class SentConversion(_SentOutcome):
    """A purchase, a booking, an answer that was accepted."""

    type: Literal["conversion"]
    value: FiniteFloat | None = Field(None, description="What it was worth, in a unit of your own.")


class SentImpression(BaseModel):
    """A ranking that the search app made and showed by itself."""

    type: Literal["impression"]
    id: Identifier
    query: QueryText
    document_ids: list[Identifier] = Field(description="In the order shown.")
    shown_at: AwareDatetime
    pipeline: str = Field("", description="What made the ranking, in your words.")
    model_version: str = ""
    features: dict[Identifier, dict[str, FiniteFloat | None]] = Field(
        {}, description="By document id: numbers by name, null where one is missing."
    )
    feature_set: Identifier | None = Field(
        None,
        description="What the features are, name@version. The loop learns only from lists logged with the set of its "
        "stage; features that are not sent are those of the list that last showed the document for the query.",
    )
    session: SessionKey | None = None
    user: UserKey | None = None
    layout: LayoutName = LIST


SentOutcome: TypeAlias = SentClick | SentDwell | SentConversion


def _type_of(event: object) -> object:
    return event.get("type", CLICK) if isinstance(event, dict) else None


SentEvent: TypeAlias = Annotated[
    Annotated[SentClick, Tag(CLICK)]
    | Annotated[SentDwell, Tag(DWELL)]
    | Annotated[SentConversion, Tag(CONVERSION)]
    | Annotated[SentImpression, Tag(IMPRESSION)],
    Discriminator(
        _type_of,
        custom_error_type="event",
        custom_error_message="Input should be an object whose type is 'click', 'dwell', 'conversion' or 'impression'",
    ),
]


class EventsRequest(BaseModel):
    """What happened to impressions, and impressions. Order does not matter, nor how late they are."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {"impression_id": "0b2f", "document_id": "with-statement"},
                        {"type": "dwell", "impression_id": "0b2f", "document_id": "with-statement", "seconds": 41.5},
                    ]
                }
            ]
        }
    )

    events: Annotated[list[SentEvent], Field(min_length=1)]


class EventsReply(BaseModel):
    """What is stored now, for good: all `ids`, of which `added` were not known before.

    `pending` events have an impression that is not known yet, so they could not be compared with what was shown.
    """

    ids: list[str]
    added: int
    pending: int


class DeletedReply(BaseModel):
    """What is gone."""

    impressions: int
    events: int
