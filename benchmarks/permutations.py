"""How answers that language models really wrote are read, and what had to be mended in them.

    python -m benchmarks.permutations path/to/rankllm-listwise-windows

The folder holds a JSON-lines file per run, named ``<retrieval>.top<depth>.<model>.<time>.jsonl``; every line has the
`doc_ids` of one window, labelled 1, 2, ..., and the model's `response`. An answer is well formed if it is a whole
permutation as ``[2] > [1]`` and nothing else; it has to be read exactly and without repairs, and any other answer as
some permutation, or the run fails. A column of the table counts the answers with that repair.
"""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter, defaultdict
from pathlib import Path

from rankers.listwise.permutation import Parsed, Repair, parse_permutation

WELL_FORMED = re.compile(r"\s*\[\d+\](?: > \[\d+\])*\s*")
MODEL = re.compile(r"\.top\d+\.(.+)\.\d{4}-\d{2}-\d{2}T")
KINDS = (Repair.FORM, Repair.EXTRA_TEXT, Repair.DUPLICATE, Repair.UNKNOWN, Repair.MISSING, Repair.NO_ANSWER)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for file in sorted(folder.glob("*.jsonl")):
        named = MODEL.search(file.name)
        model = named[1] if named else file.stem
        for line in file.read_text(encoding="utf-8").splitlines():
            window = json.loads(line)
            text, count = window["response"], len(window["doc_ids"])
            parsed = parse_permutation(text, [str(i) for i in range(1, count + 1)])
            expected = well_formed(text, count)
            check(text, parsed, expected, count)
            for name in (model, "all"):
                counts[name].update(["answers", *parsed.repairs])
                counts[name]["well-formed"] += expected is not None
    if not counts:
        raise SystemExit(f"{folder} has no .jsonl files")
    report(counts)


def well_formed(text: str, count: int) -> tuple[int, ...] | None:
    """The order that a well-formed answer states; None for any other answer."""
    order = tuple(int(number) - 1 for number in re.findall(r"\d+", text))
    return order if WELL_FORMED.fullmatch(text) and sorted(order) == list(range(count)) else None


def check(text: str, parsed: Parsed, expected: tuple[int, ...] | None, count: int) -> None:
    if sorted(parsed.order) != list(range(count)):
        raise SystemExit(f"{text!r} gave {parsed.order}, which is no permutation of {count}")
    if expected is not None and parsed != Parsed(expected):
        raise SystemExit(f"{text!r} is well formed and gave {parsed}")
    if expected is None and not parsed.repairs:
        raise SystemExit(f"{text!r} is not well formed and gave no repair")


def report(counts: dict[str, Counter[str]]) -> None:
    columns = ["answers", "well-formed", *KINDS]
    print(f"| model | {' | '.join(columns)} |")
    print(f"| --- |{' --- |' * len(columns)}")
    for model in sorted(counts, key=lambda name: (name == "all", name)):
        print(f"| {model} | {' | '.join(f'{counts[model][column]:,}' for column in columns)} |")


if __name__ == "__main__":
    main()
