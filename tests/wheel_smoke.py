"""Run by `make wheel-smoke` in the folder of a user who has installed the wheel: index, search, refuse bad input."""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path

SHORTLIST = Path(sysconfig.get_path("scripts")) / "shortlist"


def shortlist(*arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([SHORTLIST, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == status, f"shortlist {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
    return done


def main() -> None:
    import app
    import index
    import rankers
    import training

    site_packages = Path(sysconfig.get_path("purelib"))
    for package in (app, rankers, index, training):
        assert site_packages in Path(str(package.__file__)).parents, f"{package.__name__} is {package.__file__}"
        assert (Path(str(package.__file__)).parent / "py.typed").is_file()

    for templates in ("templates", "listwise/templates"):
        assert list((Path(str(rankers.__file__)).parent / templates).glob("*.yaml")), f"no {templates} in the wheel"

    shortlist("search", "anything", status=2)  # no configuration yet
    shortlist("init")
    Path("documents.jsonl").write_text(
        '{"id": "a", "text": "a fox jumps over a dog"}\n{"id": "b", "text": "a ranking of candidates by a model"}\n'
    )
    shortlist("index", "build", "documents.jsonl")
    found = json.loads(shortlist("search", "ranking models", "--pipeline", "hybrid", "--json").stdout)
    assert found["results"][0]["id"] == "b", found
    assert "evaluate" in shortlist("--help").stdout
    print(f"the wheel works from {Path.cwd().name}/ with {sys.version.split()[0]}")


if __name__ == "__main__":
    main()
