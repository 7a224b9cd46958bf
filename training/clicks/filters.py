"""Which impressions and events of a click log cannot be believed, and why: rules, reasons, counts, examples."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from rankers.errors import InvalidInputError


class Reason(StrEnum):
    """Why an impression or an event was left out."""

    DUPLICATE = "duplicate id"
    """The id was read before."""
    OUTSIDE_PERIOD = "outside the period"
    """Not in the time asked for: what came later must not teach what is tested on it."""
    EMPTY_LIST = "empty list"
    """An impression without documents."""
    REPEATED_DOCUMENT = "document twice in a list"
    """A click could be on either of its places."""
    UNKNOWN_IMPRESSION = "unknown impression"
    """Nothing in the log was shown under that id."""
    REMOVED_IMPRESSION = "impression left out"
    """Its impression was left out, for a reason of its own."""
    OTHER_FEATURES = "logged without the feature set"
    """It has no features, or those of another set or version: not what the ranker would see."""
    UNKNOWN_KIND = "unknown kind"
    """Neither a click nor a dwell time nor a conversion."""
    NOT_SHOWN = "document not shown"
    """The list shown did not contain the document."""
    WRONG_POSITION = "wrong position"
    """The document was in another place than the event says."""
    BEFORE_SHOWN = "before it was shown"
    """Earlier than its impression by more than clocks differ."""
    TOO_LATE = "too late"
    """After the click window."""
    TOO_FAST = "bot: too fast"
    """Its user saw more lists in a minute than people look at."""
    ALL_PLACES = "bot: clicks everything"
    """Its user clicks every place of nearly every list."""
    SAME_PLACE = "bot: clicks one place"
    """Its user clicks one place so often, and no other, that the log's clicks by place make it a miracle."""
    NO_DWELL = "bot: never stays"
    """Its user clicks a lot and is nearly always back at once."""
    REPEATED_CLICK = "repeated click"
    """Another click on the same document of the same impression; it counts once."""


@dataclass(frozen=True, slots=True)
class FilterRules:
    """Where the filters draw their lines; the defaults remove what hardly any person does.

    Bots are users, or sessions where an impression names no user. Impressions that name neither are not checked.

    Parameters
    ----------
    click_window_s
        Seconds after the impression in which an event still belongs to it.
    clock_skew_s
        Seconds by which an event may seem to come before its impression.
    impressions_per_minute
        Lists that a user may see in one minute of the clock.
    all_places_impressions
        Lists of at least 3 places with clicks from which on a user is checked for clicking everything.
    all_places_share
        Share of those lists clicked all over that makes a bot.
    same_place_chance
        A user whose clicks are all on one place is a bot if that had at most this chance: q ** n for n lists clicked,
        where q is the share of the log's clicks on that place. The first place is exempt: people do that.
    no_dwell_visits
        Dwell times from which on a user is checked for never staying.
    no_dwell_share
        Share of them at `no_dwell_s` or less that makes a bot.
    no_dwell_s
        Seconds.

    Raises
    ------
    InvalidInputError
        If a value is out of range.
    """

    click_window_s: float = 24 * 3600.0
    clock_skew_s: float = 2.0
    impressions_per_minute: int = 60
    all_places_impressions: int = 5
    all_places_share: float = 0.8
    same_place_chance: float = 1e-9
    no_dwell_visits: int = 20
    no_dwell_share: float = 0.95
    no_dwell_s: float = 0.0

    def __post_init__(self) -> None:
        for name in ("click_window_s", "clock_skew_s", "no_dwell_s"):
            if not getattr(self, name) >= 0:
                raise InvalidInputError(f"{name} is {getattr(self, name)}, must be 0 or more seconds", field=name)
        for name in ("impressions_per_minute", "all_places_impressions", "no_dwell_visits"):
            if getattr(self, name) < 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)}, must be at least 1", field=name)
        for name in ("all_places_share", "same_place_chance", "no_dwell_share"):
            if not 0 < getattr(self, name) <= 1:
                raise InvalidInputError(f"{name} is {getattr(self, name)}, must be in (0, 1]", field=name)


@dataclass(frozen=True, slots=True)
class Removed:
    """What was left out for one reason: of which table, how many, and up to three ids to look up."""

    table: str
    reason: Reason
    count: int
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class FilterReport:
    """What a click log held, what was left out and what remains; nothing vanishes without a reason.

    `impressions` and `events` were read; what was kept and the counts of `removed` add up to them. `clicks_kept` of
    the events kept are clicks, the others dwell times and conversions. `actors` users or sessions were checked for
    bots; `unattributed` impressions name neither.
    """

    impressions: int
    impressions_kept: int
    events: int
    events_kept: int
    clicks_kept: int
    actors: int
    unattributed: int
    removed: tuple[Removed, ...]

    def lines(self) -> Iterator[str]:
        """Yield the report as lines of a Markdown table."""
        yield "| table | what | count | for example |"
        yield "| --- | --- | --- | --- |"
        yield f"| impressions | read | {self.impressions:,} | |"
        yield f"| events | read | {self.events:,} | |"
        for removed in self.removed:
            yield f"| {removed.table} | {removed.reason} | {removed.count:,} | {', '.join(removed.examples)} |"
        yield f"| impressions | kept, {self.unattributed:,} read name no user | {self.impressions_kept:,} | |"
        yield f"| events | kept, {self.clicks_kept:,} of them clicks | {self.events_kept:,} | |"
