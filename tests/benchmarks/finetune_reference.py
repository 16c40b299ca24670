"""The fine-tuning scripts of the 2020 reference, as they are or without a defect that ends them.

A script that dies of a known defect is run again from a copy in which that one is mended, and the
result names it. The checkout itself is never changed.
"""

import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tests.benchmarks.finetune_rows import Case, Cut, first_seen_labels
from tests.benchmarks.processes import Finished, Job, run_jobs

DEFECTS = {
    "D-01": "no weight decay is ever applied",
    "D-02": "layer norms divide by the unbiased deviation",
    "D-14": "a label never or never rightly predicted divides by zero",
    "D-15": "no entity predicted, or none rightly, divides by zero",
    "D-16": "entities are looked for across the ends of sentences, padding included",
    "D-17": "scoring a test file ends in a NameError",
    "D-18": "windows without the gold answer are left out of scoring too",
    "D-19": "lengths in characters, so texts are cut into characters",
    "D-20": "candidates of equal score rank more than once; questions without answer shift gold",
    "D-35": "rows are shuffled once, or never (tagger), and not for each epoch",
    "D-36": "no model is kept unless dev exceeds 0, and the test then finds none",
    "D-38": "capitals are unknown tokens, and what is cut off is not gold",
    "D-40": "no [SEP] behind single texts; of long pairs the second loses its end",
}
# What differs in every run and ends none.
STANDING = {
    "run_classifier.py": ("D-01", "D-02", "D-35", "D-40"),
    "run_ner.py": ("D-01", "D-02", "D-16", "D-35", "D-38"),
    "run_mrc.py": ("D-01", "D-02", "D-18", "D-19", "D-35"),
}
WEIGHTS = "reference.bin"
# Where candidates are ranked.
STANDING_OF_RANK = (*STANDING["run_classifier.py"], "D-20")
SCORED = "Test set evaluation."
# Script -> defect -> (what stands there, what mends it).
MENDED: Mapping[str, Mapping[str, tuple[tuple[str, str], ...]]] = {
    "run_classifier.py": {
        "D-14": (
            ("/confusion[i,:].sum().item()", "/max(1, confusion[i,:].sum().item())"),
            ("/confusion[:,i].sum().item()", "/max(1, confusion[:,i].sum().item())"),
            ("2*p*r / (p+r)", "2*p*r / max(1e-9, p+r)"),
        ),
        "D-36": (("best_result = 0.0", "best_result = -1.0"),),
    },
    "run_ner.py": {
        "D-15": (
            ("correct/pred_entities_num", "correct/max(1, pred_entities_num)"),
            ("2*p*r/(p+r)", "2*p*r/max(1e-9, p+r)"),
        ),
        "D-36": (("best_f1 = 0.0", "best_f1 = -1.0"),),
    },
    "run_mrc.py": {
        "D-17": (
            (
                "from uer.model_saver import save_model\n",
                "from uer.model_saver import save_model\nfrom uer.model_loader import load_model\n",
            ),
        ),
        # Scored twice: as it is, then with every window. Training and dev stay as they are.
        "D-18": (
            (
                "                    continue \n",
                "                    if not getattr(args, 'every_window', False):\n"
                "                        continue\n"
                "                    start_positions = end_positions = 0\n",
            ),
            (
                "        evaluate(args, True)\n",
                "        evaluate(args, True)\n"
                "        args.every_window = True\n"
                "        evaluate(args, True)\n",
            ),
        ),
        "D-36": (("best_result = 0.0", "best_result = -1.0"),),
    },
}
# Without these two its reader cannot be scored at all, so they are always mended.
ALWAYS = {"run_mrc.py": ("D-17", "D-18")}
DIVISION = {"run_classifier.py": "D-14", "run_ner.py": "D-15"}
FIGURES = {
    "run_classifier.py": r"Acc\. \(Correct/Total\): [\d.]+ \((\d+)/(\d+)\)",
    "rank": r"Mean Reciprocal Rank: ([\d.]+)",
    "run_ner.py": r"Report precision, recall, and f1:\n[\d.]+, [\d.]+, ([\d.]+)",
    "run_mrc.py": r"Avg: ([\d.]+),F1:",
}


def diagnose(case: Case, said: str) -> str | None:
    """Return the defect that a script died of, None if it is not a known one."""
    last = said.strip().rpartition("\n")[2]
    if last.startswith("ZeroDivisionError"):
        return DIVISION.get(case.script)
    if last.startswith("FileNotFoundError") and WEIGHTS in last:
        return "D-36"
    if last.startswith("IndexError") and case.task["name"] == "rank":
        return "D-20"
    return None


def standing(case: Case) -> dict[str, str]:
    """Return the defects that are there in every run of a case's script, and end none."""
    rank = case.task["name"] == "rank"
    names = STANDING_OF_RANK if rank else STANDING[case.script]
    return {name: DEFECTS[name] for name in sorted(names)}


def mend(checkout: Path, script: str, defects: Iterable[str], folder: Path) -> Path:
    """Return a copy of a script without some of its defects; the script itself for none."""
    source = checkout / script
    wanted = sorted(defects)
    if not wanted:
        return source
    text = source.read_text(encoding="utf-8")
    for defect in wanted:
        for old, new in MENDED[script][defect]:
            assert text.count(old) == 1, f"{source}: not as at commit ba1341a: {old.strip()!r}"
            text = text.replace(old, new)
    path = folder / f"{'_'.join(wanted)}_{script}"
    path.write_text(text, encoding="utf-8")
    return path


def read_score(case: Case, said: str) -> tuple[float, float | None]:
    """Return the test score in percent; of the reader that of all windows, then as it is."""
    kind = "rank" if case.task["name"] == "rank" else case.script
    found = re.findall(FIGURES[kind], said.partition(SCORED)[2])
    assert found, f"{case.script} printed no score"
    if kind == "run_classifier.py":
        correct, total = map(int, found[-1])
        return 100 * correct / total, None
    if kind == "run_mrc.py":
        return float(found[-1]), float(found[0])
    return 100 * float(found[-1]), None


def run_reference(
    case: Case,
    checkout: Path,
    start: Path,
    vocab: Path,
    data: Cut,
    settings: Mapping[str, Any],
    threads: int,
    folder: Path,
) -> tuple[dict[str, Any], Path]:
    """Fine-tune and score by a script; return the result, and its weights where it left any.

    start: folder of `convert --to uer`. settings: those of our spec. Costs are those of the run
    that came to its end; defects: those that were mended, and those that ended runs.
    """
    out = folder / WEIGHTS
    mended = set(ALWAYS.get(case.script, ()))
    while True:
        out.unlink(missing_ok=True)
        script = mend(checkout, case.script, mended, folder)
        command: list[object] = [sys.executable, script, *case.options]
        command += ["--pretrained_model_path", start / "model.bin", "--output_model_path", out]
        command += ["--vocab_path", vocab, "--config_path", start / "config.json"]
        for part, path in data._asdict().items():
            command += [f"--{part}_path", path]
        command += ["--epochs_num", settings["epochs"], "--batch_size", settings["batch_size"]]
        command += ["--learning_rate", settings["learning_rate"], "--seed", settings["seed"]]
        command += ["--seq_length", settings["seq_length"], "--report_steps", 10**9]
        ended = _run(command, checkout, folder, threads)
        if ended.code == 0:
            break
        defect = diagnose(case, ended.said)
        if defect is None or defect in mended:
            raise RuntimeError(f"{case.script} failed:\n{ended.said[-2000:]}")
        mended.add(defect)
        if defect not in MENDED[case.script]:
            return {**ended.costs(), "score": None, "defects": sorted(mended)}, out
    score, as_it_is = read_score(case, ended.said)
    result = {**ended.costs(), "score": score, "defects": sorted(mended)}
    return result | ({} if as_it_is is None else {"reference_as_it_is": as_it_is}), out


def _run(command: list[object], checkout: Path, folder: Path, threads: int) -> Finished:
    environment = {
        "OMP_NUM_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join([str(checkout), os.environ.get("PYTHONPATH", "")]),
        "CUDA_VISIBLE_DEVICES": "",
    }
    job = Job([command], checkout, folder / "reference.log", environment)
    ((_, ended),) = run_jobs({0: job}, 1)
    return ended


def as_native(weights: Path, template: Path, train: Path, out: Path) -> None:
    """Write the reference's fine-tuned weights as a model of ours that computes what it computes.

    template: a model of ours, fine-tuned on the same rows. So that `evaluate` can score both.
    """
    import torch

    from pipeline.registry import CONVERTERS
    from pipeline.training.checkpoint import load_tensors, save_tensors

    tensors, metadata = load_tensors(template)
    theirs = torch.load(weights, map_location="cpu", weights_only=True)
    metadata = {k: v for k, v in metadata.items() if k not in ("weights", "dev")}
    metadata["reference"] = "uer-2020"
    place = CONVERTERS.get("uer")().place
    order = ["[PAD]", *first_seen_labels(train)] if metadata["task"]["name"] == "tag" else []
    for name in tensors:
        there = place(name, metadata)
        if there is None:
            continue  # digests of the training rows
        tensors[name] = there.unpack(theirs[there.name])
        if order and name.startswith("head.output."):
            tensors[name] = tensors[name][[order.index(label) for label in metadata["labels"]]]
    save_tensors(out, tensors, metadata)
