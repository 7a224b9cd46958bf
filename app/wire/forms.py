"""Rerank requests: one superset of what Cohere, Jina, Voyage, Pinecone and vLLM clients send, and TEI's."""

from __future__ import annotations

from typing import Annotated, Any, NoReturn, TypeAlias

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    FiniteFloat,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from app.wire.events import Identifier, LayoutName, QueryText, SessionKey, UserKey
from rankers.errors import InvalidInputError
from rankers.types import Document

SUPERSET, TEI = "superset", "tei"
FORMS = frozenset({SUPERSET, TEI})
"""Names of the forms, which pydantic puts into the path of a field."""

Milliseconds = Annotated[int, Field(ge=1, le=24 * 60 * 60 * 1000)]

ONLY_LOGGED = ("session", "user", "layout")
"""Fields that are read where `log` is true; elsewhere a client may mean something else by them."""
_IDENTIFIER = TypeAdapter(Identifier)


class SentDocument(BaseModel):
    """A document as an object; fields of other names are kept, for `rank_fields` and to be given back."""

    model_config = ConfigDict(extra="allow", coerce_numbers_to_str=True)

    id: str | None = None
    title: str | None = None
    text: str | None = None
    features: dict[str, FiniteFloat] | None = Field(None, description="Numbers you already have about the document.")
    metadata: dict[str, Any] | None = None


def _as_object(value: object) -> object:
    if isinstance(value, str):
        return {"text": value}
    if not isinstance(value, dict):
        raise PydanticCustomError("document", "Input should be a string, or an object with a text")
    return value


_DOCUMENT_SCHEMA = WithJsonSchema({"anyOf": [{"type": "string"}, SentDocument.model_json_schema()]})
AnyDocument = Annotated[SentDocument, BeforeValidator(_as_object), _DOCUMENT_SCHEMA]


class RerankRequest(BaseModel):
    """Documents to put in order. Every field but `query` and `documents` may be left out, or null."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "query": "how is a file closed for sure",
                    "documents": ["A lambda makes a function.", "The with statement closes the file."],
                    "top_n": 2,
                    "return_documents": True,
                }
            ]
        }
    )

    query: QueryText
    documents: Annotated[list[AnyDocument], Field(min_length=1)]
    model: str | None = Field(None, description="A pipeline or one of its aliases; see /v1/models.")
    top_n: int | None = Field(None, ge=1, description="Results wanted; more than there are documents means all.")
    top_k: int | None = Field(None, ge=1, description="Another name of `top_n`.")
    return_documents: bool | None = None
    rank_fields: list[str] | None = Field(None, description="Fields of the documents to read, instead of the text.")
    deadline_ms: Milliseconds | None = Field(None, description="After it, the best order so far is good enough.")
    truncation: bool | None = Field(
        None, description="Sent by Voyage's clients, who get Voyage's form of the reply; documents are always cut."
    )
    max_tokens_per_doc: int | None = Field(None, description="Has no effect: each pipeline has its own budget.")
    log: bool | None = Field(
        None, description="Whether to log what is shown, which takes documents with ids; no when not given."
    )
    session: SessionKey | None = None
    user: UserKey | None = None
    layout: LayoutName | None = Field(None, description="How results are shown: 'list', or 'grid:COLUMNS'.")

    @model_validator(mode="before")
    @classmethod
    def _without_foreign_fields(cls, sent: object) -> object:
        if isinstance(sent, dict) and sent.get("log") in (None, False):
            return {name: value for name, value in sent.items() if name not in ONLY_LOGGED}
        return sent

    @property
    def wanted(self) -> int:
        """Places that come back."""
        return min(self.top_n or self.top_k or len(self.documents), len(self.documents))

    def ranked_documents(self) -> list[Document]:
        """Give what is to be ranked; ids are positions, as the clients' own need be neither given nor unique.

        Returns
        -------
        list of Document
            One per document sent, in order.

        Raises
        ------
        InvalidInputError
            If one has no text; the message names it.
        """
        return [self._ranked(at, sent) for at, sent in enumerate(self.documents)]

    def logged_ids(self) -> list[str]:
        """Give the ids that the log and later events know the documents by: the client's own.

        Returns
        -------
        list of str
            One per document sent, in order.

        Raises
        ------
        InvalidInputError
            If one has no id, or that of another; the message names it.
        """
        first: dict[str, int] = {}
        for at, sent in enumerate(self.documents):
            field = f"documents.{at}.id"
            if sent.id is None:
                raise InvalidInputError(
                    f"{field} is missing: log is true, and clicks name documents by id; send each document as an "
                    "object with an id and a text",
                    field=field,
                )
            try:
                _IDENTIFIER.validate_python(sent.id)
            except ValidationError as error:
                raise InvalidInputError(f"{field} cannot be logged: {error.errors()[0]['msg']}", field=field) from None
            if (other := first.setdefault(sent.id, at)) != at:
                raise InvalidInputError(
                    f"{field} is {sent.id!r}, as documents.{other}.id is: what is logged shows each document once",
                    field=field,
                )
        return list(first)

    def _ranked(self, at: int, sent: SentDocument) -> Document:
        title, text = sent.title or "", sent.text
        if self.rank_fields:
            given = sent.model_dump()
            parts = [str(given[name]) for name in self.rank_fields if given.get(name) is not None]
            if parts:
                title, text = "", "\n".join(parts)
        if text is None:
            value = "null" if "text" in sent.model_fields_set else "missing"
            raise InvalidInputError(
                f"documents.{at}.text is {value}: must be a string, or rank_fields must name fields the document has",
                field=f"documents.{at}.text",
            )
        return Document(str(at), text, title, sent.features or {}, sent.metadata or {})


class TeiRerankRequest(BaseModel):
    """Texts to put in order, as text-embeddings-inference takes them."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"query": "what is a lambda", "texts": ["A function.", "A file."]}]}
    )

    query: QueryText
    texts: Annotated[list[str], Field(min_length=1)]
    model: str | None = None
    raw_scores: bool | None = Field(None, description="Scores as the model gives them, not mapped to [0, 1].")
    return_text: bool | None = None
    deadline_ms: Milliseconds | None = None
    log: bool | None = Field(None, description="Must not be true: texts have no ids; send `documents` for that.")

    def ranked_documents(self) -> list[Document]:
        """Give what is to be ranked; ids are positions."""
        return [Document(str(at), text) for at, text in enumerate(self.texts)]

    def logged_ids(self) -> NoReturn:
        """Refuse: texts have no ids that clicks could name."""
        raise InvalidInputError(
            "log is true, and texts have no ids that clicks could name; send documents, each an object with an id and "
            "a text",
            field="log",
        )


def _form(body: object) -> str:
    return TEI if isinstance(body, dict) and "texts" in body and "documents" not in body else SUPERSET


AnyRerankRequest: TypeAlias = Annotated[
    Annotated[RerankRequest, Tag(SUPERSET)] | Annotated[TeiRerankRequest, Tag(TEI)], Discriminator(_form)
]
