"""Records of checkpoints joined to one curve."""

from pathlib import Path

from pipeline.artifacts import read_json_artifact
from pipeline.report.results import Point
from pipeline.report.training import CURVE_POINTS, count_parameters, join_training, thin_out
from tests.pipeline.report.zoo import STEPS, Zoo


def points(count: int) -> list[Point]:
    return [Point(step=step, tokens=10 * step, loss=float(step)) for step in range(1, count + 1)]


def test_short_curves_stay_as_they_are() -> None:
    assert thin_out(points(5)) == points(5)
    assert thin_out([]) == []


def test_a_line_that_was_written_again_counts_once() -> None:
    again = Point(step=3, tokens=30, loss=9.0)
    assert thin_out([*points(3), again])[-1] == again
    assert len(thin_out([*points(3), again])) == 3


def test_long_curves_become_means_that_end_where_they_end() -> None:
    thin = thin_out(points(1000))
    assert len(thin) <= CURVE_POINTS
    assert (thin[-1].step, thin[-1].tokens) == (1000, 10000)
    assert thin[0].loss == (1 + 2 + 3 + 4 + 5) / 5


def test_segments_join_to_one_training(finished: Zoo) -> None:
    folder = finished.results / "3_pretrain/reviews_lstm"
    records = [read_json_artifact(path) for path in sorted(folder.glob("step_*.json"))]
    training = join_training(records)
    assert [point.step for point in training.held_out] == list(STEPS)
    assert [point.step for point in training.curve] == list(range(20, 2001, 20))
    assert (training.targets, training.encoder) == (["lm"], "lstm")
    assert (training.step, training.total_steps, training.tokens) == (2000, 2000, 2000 * 32 * 77)
    assert training.held_out[-1].metrics == {"lm_accuracy": 0.29}


def test_no_held_out_rows_no_held_out_loss(finished: Zoo) -> None:
    path = finished.results / "3_pretrain/reviews_lstm/step_00000500.json"
    assert join_training([{**read_json_artifact(path), "held_out": None}]).held_out == []


def test_parameters_are_counted_from_the_header_alone(finished: Zoo) -> None:
    weights = finished.results / "4_average/reviews_lstm.safetensors"
    assert count_parameters(Path(weights)) == 64 * 64
