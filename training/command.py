"""`shortlist train`: one sub-command per kind of model."""

from __future__ import annotations

import typer

from training.cross_encoder.command import cross_encoder
from training.listwise.command import listwise
from training.retriever.command import retriever

train = typer.Typer(help="Train rerankers and retrievers from training lists.", no_args_is_help=True)
train.command("listwise")(listwise)
train.command("cross-encoder")(cross_encoder)
train.command("retriever")(retriever)
