"""The SQL that joins and filters a click log: each statement makes a table or a view that later ones read.

Times are microseconds since 1970, `reason` is NULL for what can be believed. Nothing here holds rows in memory beyond
what DuckDB can spill: hash joins, grouping by fixed-size values, and sorts of the few ids that occur twice.
"""

from training.clicks.filters import Reason

# Queries are the same if they differ in case, spaces or how Unicode spells them.
IMPRESSIONS = r"""
CREATE VIEW impressions AS
SELECT id, trim(regexp_replace(lower(nfc_normalize(query_text)), '[\s\p{Z}]+', ' ', 'g')) AS query,
    coalesce(document_ids, []) AS document_ids, coalesce(model_version, '') AS model_version,
    coalesce(layout, 'list') AS layout, epoch_us(shown_at) AS shown_us, features,
    coalesce(feature_set, '') AS feature_set, arms, seq,
    coalesce('user ' || user_key, 'session ' || session_key) AS actor
FROM impression_files
"""
EVENTS = """
CREATE VIEW events AS
SELECT id, impression_id, document_id, kind, position, epoch_us(happened_at) AS happened_us, value, seq FROM event_files
"""
LISTS = """
CREATE TABLE lists AS
SELECT row_number() OVER (ORDER BY query, document_ids, layout, model_version) - 1 AS list, *,
    len(list_distinct(document_ids)) < len(document_ids) AS repeats
FROM (SELECT DISTINCT query, document_ids, layout, model_version FROM impressions
      WHERE shown_us BETWEEN $since AND $until - 1)
"""
STAGED = f"""
CREATE TABLE staged AS
SELECT row_number() OVER () AS number, i.id, i.seq, l.list, i.shown_us, i.actor, hash(i.features) AS features_hash,
    coalesce(i.feature_set <> $feature_set, false) AS other_features,
    CASE WHEN l.list IS NULL THEN '{Reason.OUTSIDE_PERIOD}'
        WHEN len(l.document_ids) = 0 THEN '{Reason.EMPTY_LIST}'
        WHEN l.repeats THEN '{Reason.REPEATED_DOCUMENT}' END AS reason
FROM impressions i LEFT JOIN lists l ON i.query = l.query AND i.document_ids = l.document_ids AND i.layout = l.layout
    AND i.model_version = l.model_version AND i.shown_us BETWEEN $since AND $until - 1
"""
# Only ids that occur more than once are sorted; they are few, so this stays cheap.
REPEATED = """
CREATE TABLE {into} AS
SELECT number FROM (
    SELECT number, row_number() OVER (PARTITION BY id ORDER BY reason IS NOT NULL, seq, number) AS nth FROM {rows}
    WHERE id IN (SELECT id FROM {rows} GROUP BY id HAVING count(*) > 1))
WHERE nth > 1
"""
SHOWN = f"""
CREATE VIEW shown AS
SELECT s.* REPLACE (CASE WHEN r.number IS NULL THEN s.reason ELSE '{Reason.DUPLICATE}' END AS reason)
FROM staged s LEFT JOIN repeated_impressions r USING (number)
"""
FOUND = f"""
CREATE TABLE found AS
SELECT row_number() OVER () AS number, *, CASE
    WHEN impression IS NULL THEN '{Reason.UNKNOWN_IMPRESSION}'
    WHEN impression_reason IS NOT NULL THEN '{Reason.REMOVED_IMPRESSION}'
    WHEN happened_us >= $until THEN '{Reason.OUTSIDE_PERIOD}'
    WHEN kind IS NULL OR kind NOT IN ('click', 'dwell', 'conversion') THEN '{Reason.UNKNOWN_KIND}'
    WHEN place IS NULL THEN '{Reason.NOT_SHOWN}'
    WHEN position <> place THEN '{Reason.WRONG_POSITION}'
    WHEN happened_us < shown_us - $skew THEN '{Reason.BEFORE_SHOWN}'
    WHEN happened_us > shown_us + $window THEN '{Reason.TOO_LATE}'
END AS reason
FROM (SELECT e.id, e.seq, e.kind, e.position, e.happened_us, e.value, s.number AS impression, s.shown_us,
          s.reason AS impression_reason, list_position(l.document_ids, e.document_id) AS place
      FROM events e
      LEFT JOIN (FROM shown WHERE reason IS DISTINCT FROM '{Reason.DUPLICATE}') s ON e.impression_id = s.id
      LEFT JOIN lists l ON s.list = l.list)
"""
VALID = """
CREATE VIEW valid AS
SELECT f.* FROM found f WHERE reason IS NULL AND NOT EXISTS (FROM repeated_events r WHERE r.number = f.number)
"""
CLICKED = """
CREATE TABLE clicked AS
SELECT impression, place, count(*) AS times FROM valid WHERE kind = 'click' GROUP BY impression, place
"""
BOTS = f"""
CREATE TABLE bots AS
WITH usual AS (SELECT place, count(*) / sum(count(*)) OVER () AS share FROM clicked GROUP BY place),
acted AS (SELECT s.actor, s.number, len(l.document_ids) AS places FROM shown s JOIN lists l USING (list)
          WHERE s.reason IS NULL AND s.actor IS NOT NULL),
lists_clicked AS (SELECT a.actor, a.places, count(*) AS clicks, min(c.place) AS low, max(c.place) AS high
                  FROM acted a JOIN clicked c ON a.number = c.impression GROUP BY a.actor, a.number, a.places),
one_place AS (SELECT actor, min(low) AS place, count(*) AS times FROM lists_clicked GROUP BY actor
              HAVING min(low) = max(high) AND min(low) > 1),
suspects AS (
    SELECT actor, 1 AS priority, '{Reason.TOO_FAST}' AS reason FROM acted JOIN staged USING (number, actor)
        GROUP BY actor, shown_us // 60_000_000 HAVING count(*) > $per_minute
    UNION ALL SELECT actor, 2, '{Reason.ALL_PLACES}' FROM lists_clicked WHERE places >= 3
        GROUP BY actor HAVING count(*) >= $all_impressions AND avg((clicks = places)::INT) >= $all_share
    UNION ALL SELECT actor, 3, '{Reason.SAME_PLACE}' FROM one_place JOIN usual USING (place)
        WHERE times * ln(share) <= ln($chance)
    UNION ALL SELECT a.actor, 4, '{Reason.NO_DWELL}' FROM valid v JOIN acted a ON v.impression = a.number
        WHERE v.kind = 'dwell' AND v.value IS NOT NULL
        GROUP BY a.actor HAVING count(*) >= $visits AND avg((v.value <= $no_dwell_s)::INT) >= $visit_share)
SELECT actor, arg_min(reason, priority) AS reason FROM suspects GROUP BY actor
"""
# What has other features still tells who is a bot.
KEPT = """
CREATE VIEW kept AS
SELECT * FROM shown s WHERE reason IS NULL AND NOT other_features AND NOT EXISTS (FROM bots b WHERE b.actor = s.actor)
"""
REMOVED_IMPRESSIONS = f"""
SELECT coalesce(s.reason, CASE WHEN s.other_features THEN '{Reason.OTHER_FEATURES}' END, b.reason) AS why, count(*),
    min(s.id, $examples)
FROM shown s LEFT JOIN bots b USING (actor) WHERE why IS NOT NULL GROUP BY why
"""
REMOVED_EVENTS = f"""
SELECT CASE WHEN r.number IS NOT NULL THEN '{Reason.DUPLICATE}'
    WHEN s.other_features THEN '{Reason.REMOVED_IMPRESSION}' ELSE coalesce(f.reason, b.reason) END AS why, count(*),
    min(f.id, $examples)
FROM found f LEFT JOIN repeated_events r ON f.number = r.number
LEFT JOIN staged s ON f.impression = s.number LEFT JOIN bots b ON s.actor = b.actor WHERE why IS NOT NULL GROUP BY why
"""
REPEATED_CLICKS = """
SELECT count(*) - count(DISTINCT (c.impression, c.place)), min(v.id, $examples)
FROM clicked c JOIN kept k ON c.impression = k.number
JOIN valid v ON v.impression = c.impression AND v.place = c.place WHERE c.times > 1 AND v.kind = 'click'
"""
COUNTS = """
SELECT (SELECT count(*) FROM staged), (SELECT count(*) FROM kept), (SELECT count(*) FROM found),
    (SELECT count(*) FROM valid v JOIN kept k ON v.impression = k.number WHERE v.kind <> 'click'),
    (SELECT count(*) FROM clicked c JOIN kept k ON c.impression = k.number),
    (SELECT count(DISTINCT actor) FROM shown WHERE reason IS NULL), (SELECT count(*) FROM staged WHERE actor IS NULL)
"""
