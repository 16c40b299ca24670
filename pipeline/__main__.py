"""The command line: `python -m pipeline STAGE ...`, one verb for each module of stages/."""

import argparse
import importlib
import sys
from types import ModuleType
from typing import NoReturn

from pipeline import __version__
from pipeline.errors import PipelineError, UsageError
from pipeline.registry import nearest

# In flow order; verb = module of pipeline.stages. Only the chosen one is imported.
STAGES = {
    "fetch": "copy or download named sources, checked by digest",
    "convert": "bring a checkpoint in, or send one out",
    "check": "check recipes and build their models without memory",
    "vocab": "build a vocabulary, or check a published one",
    "instances": "turn a corpus into memory-mapped rows of ids",
    "pretrain": "train a model on instances",
    "average": "average checkpoints",
    "finetune": "train a task head and the model under it",
    "evaluate": "score a fine-tuned model",
    "predict": "let a fine-tuned model label rows",
    "probe": "look into a model: gaps, continuations, features, neighbours",
    "report": "show all results on one page",
    "plan": "predict time, memory and disk of recipes",
    "verify": "check digests and stamps of any artefact",
    "why": "tell what made a file and what would make it stale",
    "lineage": "show what a file was made from, back to the text",
    "schema": "write the documentation and schemas of all settings",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.prog}: {message}; see `{self.prog} --help`")


def _usage() -> str:
    width = max(map(len, STAGES))
    verbs = "\n".join(f"  {verb:<{width}}  {text}" for verb, text in STAGES.items())
    return f"usage: python -m pipeline STAGE [--help] ...\n\nstages, in flow order:\n{verbs}"


def _load(verb: str) -> ModuleType:
    if verb not in STAGES:
        raise UsageError(f"no stage {verb!r}; {nearest(verb, STAGES)}")
    return importlib.import_module(f"pipeline.stages.{verb}")


def _run(arguments: list[str]) -> None:
    stage = _load(arguments[0])
    parser = _Parser(prog=f"python -m pipeline {arguments[0]}", description=stage.__doc__)
    stage.add_arguments(parser)
    stage.run(parser.parse_args(arguments[1:]))


def main(arguments: list[str] | None = None) -> int:
    """Run one stage and return its exit code; every expected problem is one line on stderr."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(_usage())
        return 0 if arguments else UsageError.exit_code
    if arguments[0] == "--version":
        print(__version__)
        return 0
    try:
        _run(arguments)
    except PipelineError as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    return 0


if __name__ == "__main__":
    sys.exit(main())
