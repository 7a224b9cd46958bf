"""`python -m app.cli`: the same command, for callers that know the interpreter and not the scripts folder."""

from app.cli.main import main

main()
