"""A trained run as one file that needs none of this project: torch.export or ONNX."""

from __future__ import annotations

import importlib.util
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from engine.config.mistakes import ConfigError
from engine.prediction.model import Model
from engine.training.files import write_bytes, writing
from engine.training.trained import LoadedRun

REQUIREMENTS = "requirements-onnx.txt"
ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
TOLERANCE = 1e-4  # of a probability; float32 differs by less
CHECKED = 5  # images, another number than the one that is traced

Function = Callable[[Tensor], Tensor]


class Whole(nn.Module):
    """From uint8 images (N, channels, H, W) to class probabilities (N, C) float32.

    Args:
        run: whose model, normalisation and probabilities it holds.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, run: LoadedRun) -> None:
        super().__init__()
        self.model = run.model
        self._readout = run.readout
        for name, values in (("mean", run.mean), ("std", run.std)):
            self.register_buffer(name, torch.tensor(values).view(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        """Return the probabilities."""
        normalised = (images.float() / 255 - self.mean) / self.std
        return self._readout.predict(self.model(normalised).logits.float()).float()


def export(model: Model, file: Path) -> float:
    """Write a model as ``.pt2`` or ``.onnx``, for any number of images at once.

    The file is written once its probabilities of images that it was not traced with agree with
    the run's; the class names are in it.

    Args:
        model: on the CPU.
        file: where to; its ending says as what.

    Returns:
        The largest difference of a probability.

    Raises:
        ConfigError: a package is missing, the model cannot be exported, or what was exported says
            something else.
        WriteError: the file cannot be written.
    """
    is_onnx = file.suffix.lower() == ".onnx"
    if is_onnx:
        _check_installed(file)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (2 + CHECKED, *model.image_shape), generator=generator).byte()
    traced, fresh = images[:2], images[2:]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        # Of torch's own, on parts of its exporter that will change.
        warnings.simplefilter("ignore")
        path = Path(folder) / file.name
        make = _onnx if is_onnx else _torch_export
        try:
            exported = make(Whole(model.run).eval(), traced, path, _description(model))
            found = exported(fresh)
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            name = model.run.config.model.name
            raise ConfigError(
                [f"{file}: model.name={name} cannot be exported: {reason}"]
            ) from error
        difference = (found.double() - model.run.predict(fresh)).abs().max().item()
        if not difference < TOLERANCE:
            raise ConfigError(
                [f"{file}: not written: what was exported differs from the run by {difference:g}"]
            )
        with writing(file):
            write_bytes(file, path.read_bytes())
    return difference


def _description(model: Model) -> dict[str, str]:
    """Return what a file says of itself, as JSON by name."""
    facts = {"class_names": list(model.class_names), "image_shape": list(model.image_shape)}
    facts |= {"fingerprint": model.facts["fingerprint"], "rule": model.run.rule}
    return {name: json.dumps(value) for name, value in facts.items()}


def _torch_export(
    whole: nn.Module, images: Tensor, path: Path, description: dict[str, str]
) -> Function:
    dynamic = {"images": {0: torch.export.Dim("batch")}}
    program = torch.export.export(whole, (images,), dynamic_shapes=dynamic)
    torch.export.save(program, path, extra_files=description)
    loaded: Function = torch.export.load(path).module()
    return loaded


def _onnx(whole: nn.Module, images: Tensor, path: Path, description: dict[str, str]) -> Function:
    import onnxruntime

    program = torch.onnx.export(
        whole,
        (images,),
        dynamo=True,
        dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
        input_names=["images"],
        output_names=["probabilities"],
        verbose=False,
    )
    assert program is not None
    program.model.metadata_props.update(description)
    program.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def answer(given: Tensor) -> Tensor:
        (found,) = session.run(None, {"images": given.numpy()})
        return torch.from_numpy(found)

    return answer


def _check_installed(file: Path) -> None:
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(
            [
                f"--export {file}: needs {', '.join(missing)}: "
                f"pip install -r {REQUIREMENTS} -c constraints.txt"
            ]
        )
