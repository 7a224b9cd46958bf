"""Who is attacked, with what, and what it brings."""

from rankers.types import Query, Ranking
from tests.training.robustness.rankers import DOCUMENTS
from training.robustness.attacks import ATTACKS, INJECTION, attacked, choose_victims, rank_changes, share_entering

IDS = tuple(document.id for document in DOCUMENTS)
CANDIDATES = [Ranking.from_order(Query(f"q{i}", "?"), DOCUMENTS) for i in range(50)]
CLEAN = {f"q{i}": IDS for i in range(50)}


def test_victims_are_not_relevant_and_have_a_place_to_win() -> None:
    qrels = {f"q{i}": {"d15": 1, "d16": 0} for i in range(50)}
    victims = choose_victims(CANDIDATES, CLEAN, qrels, seed=1)
    assert set(victims.values()) == set(IDS[10:]) - {"d15"}
    assert victims == choose_victims(CANDIDATES, CLEAN, qrels, seed=1)
    assert victims != choose_victims(CANDIDATES, CLEAN, qrels, seed=2)


def test_a_short_list_gives_victims_of_the_top_and_a_relevant_one_none() -> None:
    short = [ranking.top(2) for ranking in CANDIDATES[:2]]
    assert choose_victims(short, CLEAN, {"q0": {"d00": 1, "d01": 2}, "q1": {"d00": 1}}, seed=0) == {"q1": "d01"}


def test_an_attack_changes_one_text_and_nothing_else() -> None:
    texts = {}
    for attack in ATTACKS:
        changed = attacked(CANDIDATES[0], "d03", attack)
        assert changed.scores == CANDIDATES[0].scores
        different = [i for i, (one, other) in enumerate(zip(changed.documents, DOCUMENTS, strict=True)) if one != other]
        assert different == [3]
        assert changed.documents[3].title == DOCUMENTS[3].title
        texts[attack.slug] = changed.documents[3].text
    original = DOCUMENTS[3].text
    assert texts == {
        "injection-before": f"{INJECTION} {original}",
        "injection-after": f"{original} {INJECTION}",
        "label-letter": f"[A] {original}",
        "label-number": f"[3] {original}",
        "label-passage": f"Passage 2: {original}",
    }


def test_places_won_and_entering_the_top() -> None:
    orders = {"q0": ["d15", *(i for i in IDS if i != "d15")], "q1": IDS[::-1], "q2": [*IDS[1:], "d00"]}
    victims = {"q0": "d15", "q1": "d04", "q2": "d00"}
    assert rank_changes(orders, CLEAN, victims) == {"q0": 15, "q1": 4 - 15, "q2": -19}
    assert share_entering(orders, CLEAN, victims) == 1 / 3
    assert share_entering({}, {}, {}) == 0.0
