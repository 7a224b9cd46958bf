"""Rounds of `shortlist demo-loop`: search and click over HTTP, run both loops, wait for the swap, measure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt

from app.cli.console import err
from app.cli.demo_users import EXAMINATION, NOISE, PREFERENCES, Audience, clicked_places
from rankers.errors import NotReadyError, WorkerError
from rankers.ltr.models import RANKER_FILE, load_propensities
from rankers.types import Document

PRODUCTION = "production"
ARMS = {"debiased": "dla", "naive": "naive"}
"""Pipelines that learn, and their learners."""
PLACES = len(EXAMINATION)
CANDIDATES = 20
"""How many production finds and the arms reorder."""
REFUSED = 3
"""Exit status of `shortlist loop run` when the gate lets nothing pass."""
IN_FLIGHT = 8
REPORT_EVERY = 100
SWAP_S = 30.0


class Board:
    """What the page shows. `shown` is replaced as a whole, so that a reader on another thread never sees a half.

    Parameters
    ----------
    rounds
        How many there will be.
    """

    def __init__(self, rounds: int) -> None:
        self.measures: list[dict[str, Any]] = []
        self.decisions: list[dict[str, Any]] = []
        self.shown: dict[str, Any] = {
            "state": "running",
            "doing": "starting",
            "rounds": rounds,
            "noise": NOISE,
            "preferences": [{"says": each.says, "weight": each.weight} for each in PREFERENCES],
            "measures": [],
            "decisions": [],
            "curves": {"true": _relative(EXAMINATION)},
            "example": None,
        }

    def show(self, **changes: object) -> None:
        """Change some of it."""
        self.shown = {**self.shown, "measures": list(self.measures), "decisions": list(self.decisions), **changes}

    def last(self, which: str) -> dict[str, float]:
        """Latest nDCG by pipeline, on queries that are ``clicked`` or ``held_out``."""
        measured: dict[str, float] = self.measures[-1][which]
        return measured


class Rounds:
    """Everything that happens in a demonstration.

    Parameters
    ----------
    client
        Of the service.
    audience
        Users.
    board
        Where results go.
    folder
        With the settings of the loops, ``loop-ARM.yaml``.
    seed
        Of the clicks.
    """

    def __init__(self, client: httpx.Client, audience: Audience, board: Board, folder: Path, *, seed: int) -> None:
        self._client = client
        self._audience = audience
        self._board = board
        self._folder = folder
        self._generator = np.random.default_rng(seed)
        self._shown = np.zeros(PLACES)
        self._clicks = np.zeros(PLACES)
        self._users = 0

    def run(self, rounds: int, *, searches: int) -> None:
        """Go around.

        Parameters
        ----------
        rounds
            How often.
        searches
            Per round, half of them on each arm.

        Raises
        ------
        WorkerError
            If a loop fails.
        NotReadyError
            If the service does not take over what was promoted.
        """
        self._measure(0)
        for number in range(1, rounds + 1):
            self._ask(number, searches)
            self._learn(number)
            self._measure(number)
        self._board.show(state="finished", doing=f"{rounds} rounds are done")

    def _ask(self, number: int, searches: int) -> None:
        """Let users search and click, on one arm or the other."""
        asked = list(self._audience.asked)
        drawn = [query for _ in range(-(-searches // len(asked))) for query in self._generator.permutation(asked)]
        todo = [(str(query), list(ARMS)[at % len(ARMS)]) for at, query in enumerate(drawn[:searches])]
        for start in range(0, searches, REPORT_EVERY):
            self._board.show(doing=f"round {number}: users search and click, {start} of {searches} searches")
            self._ask_and_click(todo[start : start + REPORT_EVERY])

    def _ask_and_click(self, todo: list[tuple[str, str]]) -> None:
        first = self._users
        self._users += len(todo)

        def ask(at: int) -> dict[str, Any]:
            query, pipeline = todo[at]
            return _search(self._client, query, pipeline, PLACES, user=f"user-{first + at}")

        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            replies = list(pool.map(ask, range(len(todo))))
        events = []
        for (query, _), reply in zip(todo, replies, strict=True):
            ids = [result["document"]["id"] for result in reply["results"]]
            clicked = clicked_places([self._audience.likes[query][each] for each in ids], self._generator)
            self._shown += 1
            self._clicks[np.array(clicked, dtype=int) - 1] += 1
            events += [{"impression_id": reply["impression_id"], "document_id": ids[at - 1]} for at in clicked]
        if events:
            self._client.post("/v1/events", json={"events": events}).raise_for_status()

    def _learn(self, number: int) -> None:
        """Run both loops at the same time, then wait until the service runs what they promoted."""
        self._board.show(doing=f"round {number}: both loops learn, and their gates decide")
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        running = {
            arm: subprocess.Popen(
                [sys.executable, "-m", "app.cli", "loop", "run", "--settings", str(self._folder / f"loop-{arm}.yaml")],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for arm in ARMS
        }
        try:
            for arm, process in running.items():
                said, _ = process.communicate()
                if process.returncode not in {0, REFUSED}:
                    raise WorkerError(f"the {arm} loop ended with status {process.returncode}:\n{said.strip()}")
        finally:
            for process in running.values():
                process.kill()
        for arm in ARMS:
            decision = self._decision(arm)
            self._board.decisions.append({"round": number, "arm": arm, **decision})
            verdict = "promoted" if decision["promoted"] else "refused, " + "; ".join(decision["reasons"])
            err.print(f"round {number}, {arm}: {verdict}")
            if decision["promoted"]:
                self._wait_for(arm, f"demo-{arm}@{decision['version']}")

    def _decision(self, arm: str) -> dict[str, Any]:
        """Read what the last turn of a loop left."""
        path = max((self._folder / "loop" / f"demo-{arm}").glob("*/run.json"))
        steps = json.loads(path.read_text(encoding="utf-8"))
        return {
            "version": path.parent.name,
            "sessions": steps["train"]["sessions"],
            "clicks": steps["train"]["clicks"],
            "checks": [*steps["train"]["checks"], *steps["evaluate"]["checks"]],
            **steps["decide"],
        }

    def _wait_for(self, arm: str, model: str) -> None:
        deadline = time.monotonic() + SWAP_S
        while time.monotonic() < deadline:
            pipelines = self._client.get("/v1/pipelines").raise_for_status().json()["pipelines"]
            if model in next(each for each in pipelines if each["name"] == arm)["models"].values():
                return
            time.sleep(0.1)
        raise NotReadyError(
            f"pipeline {arm!r} did not take over {model} in {SWAP_S:.0f} s; the service's lines say why"
        )

    def _measure(self, number: int) -> None:
        """Compare all pipelines with what users like; nothing of it is logged."""
        self._board.show(doing=f"round {number}: measuring")
        audience, names = self._audience, [PRODUCTION, *ARMS]
        todo = [(query, name) for query in (*audience.asked, *audience.held_out) for name in names]
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            replies = list(pool.map(lambda each: _search(self._client, each[0], each[1], PLACES, log=False), todo))
        found = dict(zip(todo, replies, strict=True))
        ids = {each: [result["document"]["id"] for result in reply["results"]] for each, reply in found.items()}

        def mean(queries: Sequence[str]) -> dict[str, float]:
            return {name: float(np.mean([audience.ndcg(each, ids[each, name]) for each in queries])) for name in names}

        measured = {"clicked": mean(audience.asked), "held_out": mean(audience.held_out)}
        self._board.measures.append(
            {"round": number, "searches": self._users, "clicks": int(self._clicks.sum()), **measured}
        )
        example = max(audience.held_out, key=lambda query: audience.missed(query, ids[query, PRODUCTION]))
        lists = {name: self._places(example, found[example, name]["results"]) for name in names}
        self._board.show(curves=self._curves(), example={"query": example, "lists": lists})

    def _places(self, query: str, results: list[dict[str, Any]]) -> list[dict[str, Any]]:
        likes = self._audience.likes[query]
        documents = [result["document"] for result in results]
        return [
            {**{key: each[key] for key in ("id", "title", "text")}, "liked": likes[each["id"]]} for each in documents
        ]

    def _curves(self) -> dict[str, list[float | None]]:
        """How likely places are looked at, relative to the first: as it is, as the latest turn learned, and clicks."""
        curves = {"true": _relative(EXAMINATION)}
        if self._shown.any():
            curves["clicks"] = _relative(self._clicks / self._shown)
        candidates = sorted((self._folder / "loop" / "demo-debiased").glob(f"*/candidate/{RANKER_FILE}"))
        learned = load_propensities(candidates[-1].parent) if candidates else None
        if learned is not None:
            curves["learned"] = _relative(learned[:PLACES])
        return curves


def _relative(curve: Sequence[float] | npt.NDArray[np.float64]) -> list[float | None]:
    """As JSON: relative to the first place, None where nothing is known."""
    values = np.asarray(curve, dtype=np.float64) / curve[0] if curve[0] else np.full(len(curve), np.nan)
    return [None if np.isnan(value) else float(value) for value in values]


def find_candidates(client: httpx.Client, queries: Sequence[str]) -> dict[str, list[Document]]:
    """Search production for queries; what the other pipelines reorder too."""
    found = {query: _search(client, query, PRODUCTION, CANDIDATES, explain=True, log=False) for query in queries}
    return {query: [Document(**hit["document"]) for hit in reply["results"]] for query, reply in found.items()}


def _search(client: httpx.Client, query: str, pipeline: str, top_k: int, **more: object) -> dict[str, Any]:
    body = {"query": query, "pipeline": pipeline, "top_k": top_k, **more}
    reply: dict[str, Any] = client.post("/v1/search", json=body).raise_for_status().json()
    return reply
