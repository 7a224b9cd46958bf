"""`shortlist data`: training lists from what is judged, ranked or written, and nothing that is tested on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from rankers.errors import InvalidInputError
from rankers.registry import ModelRegistry
from rankers.sources import resolve_model

if TYPE_CHECKING:
    from index.encoders import Encoder
    from index.pipelines import Pipelines
    from rankers.protocols import GenerativeModel, Retriever
    from training.data.leakage import HeldOut, Leak
    from training.data.training_list import TrainingList
    from training.evaluation.datasets import Dataset

data = typer.Typer(help="Make data to train rankers on.", no_args_is_help=True)
err = Console(stderr=True, highlight=False)


class Meeting(StrEnum):
    """Which documents a panel shows together."""

    BY_CHANCE = "by-chance"
    NEAR = "near"
    CANDIDATES = "candidates"


ConfigFile = Annotated[
    Path, typer.Option("--config", envvar="SHORTLIST_CONFIG", help="The YAML file that names the pipelines.")
]
Against = Annotated[
    list[Path] | None,
    typer.Option(help="A BEIR directory whose test queries and judged documents must not occur; again for more."),
]
AgainstQueries = Annotated[
    list[Path] | None,
    typer.Option(help="The same for its test queries only, where training and test share one corpus."),
]
DropLeaks = Annotated[bool, typer.Option("--drop-leaks", help="Leave out what is in a test set instead of refusing.")]


@data.command()
def lists(
    recipe: Annotated[Path, typer.Argument(help="A YAML file that names the sources; see docs/training-data.md.")],
    *,
    out: Annotated[Path, typer.Option(help="Where the lists go, as JSON lines.")],
    config: ConfigFile = Path("shortlist.yaml"),
    against: Against = None,
    against_queries: AgainstQueries = None,
    drop_leaks: DropLeaks = False,
) -> None:
    """Build training lists from judgements, teachers, runs and logs, and refuse what is in a test set."""
    from index.pipelines import load_pipelines
    from training.data.building import build_lists
    from training.data.leakage import find_leaks, refuse_leaks
    from training.data.recipe import load_recipe

    if out.is_dir():
        raise InvalidInputError(f"{out} is a folder; name a file with --out")
    loaded = load_recipe(recipe)
    held_out = _load_held_out((*loaded.against, *(against or ())), (*loaded.against_queries, *(against_queries or ())))
    left_out: dict[str, list[str]] = {}

    def refuse_queries(untaught: Sequence[TrainingList]) -> None:
        """Look for queries that leak before a teacher is paid; which documents it keeps is not known yet."""
        if not drop_leaks:
            refuse_leaks(find_leaks(untaught, [replace(test, documents=()) for test in held_out]))

    with closing(load_pipelines(config)) as pipelines, _bars() as progress:
        built = build_lists(
            loaded,
            pipelines,
            on_progress=progress,
            on_left_out=lambda name, why: left_out.setdefault(name, []).append(why),
            before_teaching=refuse_queries,
        )
    _write_checked(out, built, held_out, drop_leaks=drop_leaks)
    for name, why in left_out.items():
        err.print(
            f"left out: {len(why):,} queries of {name} for which its teacher gave no order; {why[0]}",
            markup=False,
            soft_wrap=True,
        )


@data.command()
def panels(
    lists: Annotated[list[Path], typer.Argument(help="Files of judged training lists.")],
    *,
    out: Annotated[Path, typer.Option(help="Where the new lists go, as JSON lines.")],
    meet: Annotated[
        Meeting,
        typer.Option(
            help="Which documents are shown together: the best of lists drawn by chance, the best that are near "
            "each other, or the candidates of one list."
        ),
    ],
    documents: Annotated[int, typer.Option(min=2, help="Documents that are shown together.")] = 6,
    words: Annotated[int, typer.Option(min=1, help="Words of a passage that are kept.")] = 60,
    step: Annotated[
        float, typer.Option(min=0, help="With candidates: what the teacher tells apart by less than this is a tie.")
    ] = 0.0,
    teacher: Annotated[str, typer.Option(help="Embedding model that says what is near.")] = "minilm",
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn.")] = 0,
    config: ConfigFile = Path("shortlist.yaml"),
    against: Against = None,
    against_queries: AgainstQueries = None,
    drop_leaks: DropLeaks = False,
) -> None:
    """Let several queries share each window: lists from which a listwise ranker learns several times as fast."""
    from index.pipelines import load_pipelines
    from training.data.panels import build_panels, share_best
    from training.data.training_list import read_lists

    if out.is_dir():
        raise InvalidInputError(f"{out} is a folder; name a file with --out")
    held_out = _load_held_out(against or (), against_queries or ())
    judged = [item for path in lists for item in read_lists(path)]
    encoder = None if meet is Meeting.BY_CHANCE else _encoder(teacher, load_pipelines(config))
    with _bars() as progress:
        made: Iterable[TrainingList]
        if meet is Meeting.CANDIDATES and encoder is not None:
            made = build_panels(
                judged,
                encoder,
                documents=documents,
                queries=documents,
                words=words,
                step=step,
                seed=seed,
                on_progress=lambda done, total: progress("panels", done, total),
            )
        else:
            made = share_best(judged, teacher=encoder, documents=documents, words=words, seed=seed)
        found = list(made)
    if not found:
        raise InvalidInputError(
            f"{len(judged):,} lists give no window of {documents} documents that tells a right one from a wrong one; "
            "give more lists, or fewer --documents"
        )
    _write_checked(out, found, held_out, drop_leaks=drop_leaks)


@data.command()
def synthesize(
    source: Annotated[str, typer.Argument(help="Documents: a BEIR directory, a .jsonl file, or python-docs.")],
    *,
    out: Annotated[Path, typer.Option(help="Folder for a collection in BEIR layout; its queries are judged in train.")],
    queries: Annotated[int, typer.Option(min=1, help="Documents to have a query written for.")] = 1000,
    model: Annotated[
        str, typer.Option(help="What writes: as in shortlist.yaml, or its name on --server.")
    ] = "smollm2-135m",
    server: Annotated[
        str | None, typer.Option(help="A chat server of the OpenAI protocol, https://host/v1.", show_default=False)
    ] = None,
    api_key_variable: Annotated[str | None, typer.Option(help="Environment variable with the server's key.")] = None,
    examples: Annotated[
        Path | None, typer.Option(help="JSON lines with document and query, to show instead of the packaged three.")
    ] = None,
    clusters: Annotated[
        int | None, typer.Option(min=1, help="Draw documents from so many clusters of the corpus (DUQGen).")
    ] = None,
    temperature: Annotated[float, typer.Option(min=1e-6, help="Smaller draws nearer to the cluster centres.")] = 1.0,
    encoder: Annotated[str, typer.Option(help="Embeds documents for the clusters.")] = "minilm",
    keep_if: Annotated[
        str | None, typer.Option(help="Pipeline that must find the document again; 'none' keeps every query.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Among how many it must find it.")] = 3,
    max_new_tokens: Annotated[
        int, typer.Option(min=1, help="Longest query, in tokens; a model that thinks before it writes needs more.")
    ] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Of everything drawn.")] = 0,
    config: ConfigFile = Path("shortlist.yaml"),
) -> None:
    """Have an LLM write queries for documents (InPars-Light, DUQGen), and keep those that lead back to them."""
    from index.pipelines import load_pipelines
    from index.sources import read_documents
    from training.data import synthesis
    from training.data.query_writer import CHAT, COMPLETION, EXAMPLES, QueryWriter, read_examples
    from training.evaluation.datasets import Dataset

    synthesis.check_folder(out, source)
    pipelines = load_pipelines(config)
    judge = None if keep_if == "none" else pipelines.resolve(keep_if)
    documents = list(read_documents(source))
    shown = read_examples(examples) if examples else EXAMPLES
    settings = {
        "source": source,
        "documents_sha256": synthesis.hash_documents(documents),
        "model": model if server else _version(model, pipelines),
        "server": server,
        "max_new_tokens": max_new_tokens,
        "examples": shown,
        "clusters": clusters,
        "temperature": temperature if clusters else None,
        "encoder": _version(encoder, pipelines) if clusters else None,
        "seed": seed,
    }
    with _bars() as progress:
        drawn = synthesis.draw_documents(
            documents,
            queries,
            clusters=clusters,
            temperature=temperature,
            seed=seed,
            encoder=_encoder(encoder, pipelines) if clusters else None,
            on_progress=progress,
        )
        with _opened_writer(model, server, api_key_variable, pipelines) as engine:
            writer = QueryWriter(
                engine, examples=shown, template=CHAT if server else COMPLETION, max_new_tokens=max_new_tokens
            )
            written = synthesis.write_queries(drawn, writer, out, settings=settings, on_progress=progress)
        kept = written
        if judge is not None:
            retriever = _searcher(judge, pipelines, Dataset(out.resolve().name, (), {}, lambda: iter(documents)))
            kept = synthesis.keep_consistent(written, retriever, top_k=top_k, on_progress=progress)
    synthesis.write_collection(out, documents, kept)
    err.print(
        f"{out}: {len(kept):,} queries; of {len(drawn):,} documents {len(drawn) - len(written):,} got none, and "
        f"{len(written) - len(kept):,} queries did not lead back to theirs"
    )


@contextmanager
def _opened_writer(
    model: str, server: str | None, api_key_variable: str | None, pipelines: Pipelines
) -> Iterator[GenerativeModel]:
    """Load the model that writes, or connect to its server."""
    if server is None:
        from rankers.llm.transformers_engine import TransformersEngine

        yield TransformersEngine.load(resolve_model(model, models_dir=pipelines.models_dir))
        return
    from index.stages import ServerSpec
    from rankers.llm.chat_engine import ChatEngine

    key = ServerSpec(kind="chat", url=server, model=model, api_key_variable=api_key_variable).api_key
    with ChatEngine(server, model=model, api_key=key) as engine:
        yield engine


def _version(name: str, pipelines: Pipelines) -> str:
    """Name what a model is now: ``name@version`` of the registry, or where its files lie."""
    folder = resolve_model(name, models_dir=pipelines.models_dir)
    return ModelRegistry(pipelines.models_dir).label(Path(folder)) or folder


def _searcher(name: str, pipelines: Pipelines, dataset: Dataset) -> Retriever:
    from training.evaluation.command import report_building
    from training.evaluation.inputs import choose_source

    found = choose_source(pipelines, dataset, [name], index=None, first_stage=None, on_progress=report_building)
    return pipelines.open(name, index=found.index)


def _encoder(name: str, pipelines: Pipelines) -> Encoder:
    from index.encoders import Encoder

    return Encoder(resolve_model(name, models_dir=pipelines.models_dir))


def _load_held_out(against: Iterable[Path], against_queries: Iterable[Path]) -> list[HeldOut]:
    """Read the test sets, and say which of them lack documents."""
    from training.data.leakage import load_held_out

    held_out = [load_held_out(folder) for folder in against]
    for test in held_out:
        if test.missing:
            err.print(
                f"{test.name}: {test.missing:,} of {len(test.documents) + test.missing:,} judged documents are not in "
                "its corpus.jsonl and cannot be compared"
            )
    return held_out + [load_held_out(folder, documents=False) for folder in against_queries]


def _write_checked(out: Path, built: Sequence[TrainingList], held_out: Sequence[HeldOut], *, drop_leaks: bool) -> None:
    """Write lists that have nothing of a test set, and report on them."""
    from training.data.leakage import drop_leaks as without_leaks
    from training.data.leakage import find_leaks, refuse_leaks
    from training.data.training_list import write_lists

    with _bars() as progress:
        leaks = find_leaks(built, held_out, on_progress=lambda done, total: progress("leaks", done, total))
    if not drop_leaks:
        refuse_leaks(leaks)
    kept = list(without_leaks(built, leaks))
    if not kept:
        raise InvalidInputError(f"every one of the {len(built)} lists has a test query in it; nothing is left to write")
    write_lists(out, kept)
    _report(kept, built, leaks, out)
    if not held_out:
        err.print("nothing was checked for leaks: name the test sets with --against")


def _report(kept: Sequence[TrainingList], built: Sequence[TrainingList], leaks: Sequence[Leak], out: Path) -> None:
    """Say how many lists came from where, and what was left out."""
    from training.data.training_list import hash_lists

    table = Table("source", "lists", "documents", title=f"{out}, sha256 {hash_lists(kept)[:12]}")
    documents: Counter[str] = Counter()
    for item in kept:
        documents[item.source] += len(item.documents)
    for source, count in Counter(item.source for item in kept).most_common():
        table.add_row(source, f"{count:,}", f"{documents[source] / count:.1f} a list")
    Console(highlight=False).print(table)
    if leaks:
        queries = sum(leak.kind == "query" for leak in leaks)
        err.print(
            f"left out: {queries:,} queries and {len(leaks) - queries:,} documents that are in a test set, and with "
            f"them {len(built) - len(kept):,} lists"
        )


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    """Show a bar per kind of work; what it gives is called with the kind, done and total."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err) as progress:
        tasks: dict[str, TaskID] = {}

        def report(kind: str, done: int, total: int) -> None:
            if kind not in tasks:
                tasks[kind] = progress.add_task(kind, total=total)
            progress.update(tasks[kind], completed=done, total=total)

        yield report
