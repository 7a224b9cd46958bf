"""Everything that can be set from outside, in one place."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class Settings(BaseSettings):
    """The service's settings; each can be given as ``SHORTLIST_<NAME>`` in the environment.

    The environment is read when an instance is made, never at import.
    """

    model_config = SettingsConfigDict(env_prefix="SHORTLIST_", frozen=True, extra="forbid")

    config: Path = Field(Path("shortlist.yaml"), description="The file that names the pipelines.")
    host: str = "127.0.0.1"
    port: int = Field(8000, ge=0, le=65535)
    log_level: Literal["critical", "error", "warning", "info", "debug"] = "info"
    click_log_url: str = Field(
        "sqlite:///var/clicks.sqlite", description="An SQLAlchemy URL: sqlite:///FILE or postgresql+psycopg://..."
    )
    click_log_timeout_s: float = Field(2.0, gt=0, description="Longest a search waits for its impression to be stored.")
    click_log_salt: SecretStr | None = Field(
        None, description="For hashing keys of users and sessions; one kept in the database when not given."
    )
    click_log_retention_days: float | None = Field(
        None, gt=0, description="After so many days impressions and events are deleted; never when not given."
    )
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="Keys separated by commas; where there are none, no key is asked for."
    )

    max_request_bytes: int = Field(32 * 2**20, ge=1)
    max_documents: int = Field(1000, ge=1, description="Documents in one rerank request.")
    max_query_chars: int = Field(8192, ge=1)
    max_top_k: int = Field(1000, ge=1, description="Results of one search.")
    max_events: int = Field(1000, ge=1, description="Events in one request.")

    max_queue_tokens: int = Field(65_536, ge=1, description="Tokens of work admitted at a time; above it, 429.")
    max_batch_tokens: int = Field(8192, ge=1, description="Tokens of work of several requests that run together.")
    max_batch_wait_ms: float = Field(2.0, ge=0, description="Longest a request waits for others to share its batch.")
    request_timeout_s: float = Field(60.0, gt=0, description="Longest a request takes; above it, 504.")

    refresh_interval_s: float = Field(2.0, gt=0, description="How often to look for a new index or model version.")
    golden_interval_s: float = Field(60.0, ge=0, description="How long /ready trusts its last check of golden scores.")

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(key for part in value.split(",") if (key := part.strip()))
        return value
