"""predict.py --export: the file says what the run says, or is not written."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import predict
from data.digits import Digits
from engine.prediction import program
from engine.training.trained import load_run
from tests._full_disk import full_at
from tests.prediction._trained import run_of


def test_an_exported_model_needs_its_file_alone_and_says_what_the_run_says(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "model.pt2"
    assert predict.main([str(run_of(digits)), "--export", str(file), "--rule", "last"]) == 0
    assert f"written: {file}; its probabilities are the run's to" in capsys.readouterr().out
    facts = {"class_names": "", "fingerprint": "", "rule": "", "image_shape": ""}
    exported = torch.export.load(file, extra_files=facts)
    run, images = load_run(run_of(digits), rule="last"), Digits().load().test.images[:7]
    found = exported.module()(images)
    assert torch.allclose(found.double(), run.predict(images), rtol=0, atol=1e-5)
    assert json.loads(facts["class_names"]) == list(run.class_names)
    assert json.loads(facts["fingerprint"]) == run_of(digits).name
    assert (json.loads(facts["rule"]), json.loads(facts["image_shape"])) == ("last", [1, 8, 8])


def test_what_was_exported_and_says_something_else_is_not_written(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        program, "_torch_export", lambda *given: lambda images: torch.full((len(images), 10), 0.1)
    )
    file = tmp_path / "model.pt2"
    assert predict.main([str(run_of(digits)), "--export", str(file)]) == 2
    assert "model.pt2: not written: what was exported differs" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_cannot_be_written_is_one_line(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def itself(whole: nn.Module, images: Tensor, path: Path, _: object) -> nn.Module:
        path.write_bytes(b"a program")
        return whole

    monkeypatch.setattr(program, "_torch_export", itself)
    file = tmp_path / "model.pt2"
    full_at(file)
    assert predict.main([str(run_of(digits)), "--export", str(file)]) == 1
    assert capsys.readouterr().err == f"{file}: cannot be written: No space left on device\n"
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_cannot_be_exported_is_one_line(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*given: object) -> None:
        raise RuntimeError("no such operator\nand a long trace")

    monkeypatch.setattr(program, "_torch_export", refuse)
    assert predict.main([str(run_of(digits)), "--export", str(tmp_path / "model.pt2")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("model.name=cifar_resnet8 cannot be exported: no such operator")


def test_onnx_without_its_packages_names_the_command_that_installs_them(
    digits: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "onnxscript" else found("json")
    )
    assert predict.main([str(run_of(digits)), "--export", str(tmp_path / "model.onnx")]) == 2
    assert capsys.readouterr().err.endswith(
        "model.onnx: needs onnxscript: pip install -r requirements-onnx.txt -c constraints.txt\n"
    )
