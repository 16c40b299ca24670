"""Resume points: whole or absent, never of other settings, never for ever."""

import pytest
import torch

from pipeline.errors import ConfigError, CrashLoopError
from pipeline.training.checkpoint import save_tensors
from pipeline.training.resume import ResumePoints

STAMP = {"settings": {"learning_rate": 0.1}}


def points(tmp_path, unit="00000010", stamp=STAMP):
    return ResumePoints(tmp_path, unit, stamp)


def test_the_newest_point_counts_and_two_are_kept(tmp_path):
    saved = points(tmp_path)
    for step in (3, 6, 9):
        saved.save(step, {"w": torch.full((2,), float(step))}, {"tokens": step})
    step, tensors, progress = saved.latest()
    assert (step, tensors["w"].tolist(), progress) == (9, [9.0, 9.0], {"tokens": 9})
    assert len(list(saved.folder.glob("step_*"))) == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-5] + bytes([content[-5] ^ 1]) + content[-4:],
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: bytes(len(content)),
        lambda content: content.replace(b"learning_rate", b"learning_rat\xff"),
        lambda content: b"\x80\x04" + content,
    ],
)
def test_a_damaged_point_is_set_aside_and_the_one_before_used(tmp_path, damage):
    saved = points(tmp_path)
    saved.save(3, {"w": torch.ones(64)}, {})
    saved.save(6, {"w": torch.ones(64)}, {})
    newest = saved.folder / "step_00000006.safetensors"
    newest.chmod(0o644)
    newest.write_bytes(damage(newest.read_bytes()))
    assert saved.latest()[0] == 3
    assert (saved.folder / "damaged-step_00000006.safetensors").exists()


def test_no_point_is_none(tmp_path):
    assert points(tmp_path).latest() is None


def test_other_settings_have_another_folder(tmp_path):
    other = points(tmp_path, stamp={"settings": {"learning_rate": 0.2}})
    assert other.folder != points(tmp_path).folder


def test_a_point_in_the_wrong_folder_is_refused(tmp_path):
    saved = points(tmp_path)
    wrong = {"stamp": {"settings": {"learning_rate": 0.2}}, "step": 3, "progress": {}}
    save_tensors(saved.folder / "step_00000003.safetensors", {"w": torch.ones(1)}, wrong)
    with pytest.raises(ConfigError, match=r"settings\.learning_rate: 0\.2 -> 0\.1"):
        saved.latest()


def test_points_of_other_segments_and_settings_are_removed(tmp_path):
    old = points(tmp_path, unit="00000005")
    old.save(5, {"w": torch.ones(1)}, {})
    stale = points(tmp_path, stamp={"settings": {}})
    stale.save(6, {"w": torch.ones(1)}, {})
    own = points(tmp_path)
    own.save(7, {"w": torch.ones(1)}, {})
    own.remove_others()
    assert [path.name for path in tmp_path.iterdir()] == ["00000010"]
    assert own.latest()[0] == 7
    assert stale.latest() is None


def test_the_fourth_start_without_progress_is_refused(tmp_path):
    saved = points(tmp_path)
    for _ in range(3):
        saved.count_attempt(6)
    with pytest.raises(CrashLoopError, match="3 attempts from step 6"):
        saved.count_attempt(6)
    saved.save(7, {"w": torch.ones(1)}, {})
    saved.count_attempt(7)
    assert not list(saved.folder.glob(".*"))  # published whole, as everything is
