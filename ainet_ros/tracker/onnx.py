# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The network as an ONNX file: for other runtimes, TensorRT among them, and for this tracker."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch
from torch import Tensor, nn

from ainet_ros.files import expanded, write_whole
from ainet_ros.network import AINet, AINetConfig, Output
from ainet_ros.network.model import Template

SUFFIX = ".onnx"
OPSET = 18
_INPUTS = ("template", "template_box", "search")
_OUTPUTS = ("score_map", "size_map", "offset_map", "boxes", "order")
_CONFIG = "ainet_ros.config"
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


class _Step(nn.Module):
    """What a file computes: the whole of a frame, from the template's pixels on."""

    def __init__(self, network: AINet) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, template: Tensor, template_box: Tensor, search: Tensor
    ) -> tuple[Tensor, ...]:
        output = self.network(template, search, template_box)
        return tuple(getattr(output, name) for name in _OUTPUTS)


def export(network: AINet, path: str | os.PathLike[str]) -> None:
    """Write `network`, which is in float32 on the CPU, to `path`, whole or not at all.

    The file takes `template` (1, 2, 3, T, T), `template_box` (1, 4) and `search` (1, 2, 3, S, S)
    as `AINet.forward` does and gives the fields of `Output` that are always there; the
    configuration is in its metadata. Raises ValueError without the packages of
    requirements/onnx.txt.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  torch.onnx.export needs it
    except ImportError as error:
        raise ValueError(f"to write ONNX: pip install onnx onnxscript ({error})") from None
    config = network.config
    example = (
        torch.rand(1, 2, 3, *[config.template_size] * 2),
        torch.full((1, 4), 0.5),
        torch.rand(1, 2, 3, *[config.search_size] * 2),
    )
    with torch.no_grad():
        program = torch.onnx.export(
            _Step(network).eval(),
            example,
            dynamo=True,
            opset_version=OPSET,
            input_names=_INPUTS,
            output_names=_OUTPUTS,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    onnx.helper.set_model_props(model, {_CONFIG: json.dumps(config.to_dict())})
    write_whole(Path(path), model.SerializeToString())


class OnnxNetwork(nn.Module):
    """A file of `export` in ONNX Runtime, called as an AINet is.

    Targets go through it one after the other, and their templates are embedded with each search.
    """

    def __init__(self, path: str | os.PathLike[str], device: torch.device) -> None:
        """Raises FileNotFoundError, or ValueError where the file is none of `export`'s or ONNX
        Runtime is not there for the device.
        """
        super().__init__()
        path = expanded(path)
        if not path.is_file():
            raise FileNotFoundError(f"no ONNX file {path}")
        try:
            import onnxruntime
        except ImportError:
            raise ValueError(f"to run {path}: pip install onnxruntime") from None
        provider = _PROVIDERS.get(device.type)
        if provider not in onnxruntime.get_available_providers():
            raise ValueError(
                f"ONNX Runtime does not run on {device} here: use cpu, or install onnxruntime-gpu"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        settings = {} if device.index is None else {"device_id": device.index}
        try:
            self._session = onnxruntime.InferenceSession(
                path, options, providers=[(provider, settings)]
            )
        except Exception as error:  # it has many kinds, of no common base
            raise ValueError(f"{path} is no ONNX file, or is damaged: {error}") from None
        metadata = self._session.get_modelmeta().custom_metadata_map
        if _CONFIG not in metadata:
            raise ValueError(f"{path} was not written by `ainet export`")
        try:
            self.config = AINetConfig.from_dict(json.loads(metadata[_CONFIG]))
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"{path}: {error}") from None

    def embed_template(self, template: Tensor, template_box: Tensor) -> Template:
        """As AINet's, but that the pixels and the box are kept as they are."""
        return Template(template, template_box)

    def match(self, template: Template, search: Tensor) -> Output:
        """As AINet's."""
        assert template.prompt is not None  # the box, as above
        targets = zip(template.tokens, template.prompt, search, strict=True)
        results = [self._run(target) for target in targets]
        fields = (torch.cat(field).to(search.device) for field in zip(*results, strict=True))
        return Output._make([*fields, None, None])  # no features

    def _run(self, target: tuple[Tensor, ...]) -> list[Tensor]:
        arrays = (tensor[None].cpu().numpy() for tensor in target)
        try:
            outputs = self._session.run(_OUTPUTS, dict(zip(_INPUTS, arrays, strict=True)))
        except Exception as error:  # its own kinds; as torch fails, where memory runs out too
            raise RuntimeError(f"ONNX Runtime: {error}") from error
        return [torch.from_numpy(output) for output in outputs]
