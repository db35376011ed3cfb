# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""What a training run is: read from a YAML file in config/train/."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ainet_ros.files import read_yaml
from ainet_ros.options import check

from .losses import LossWeights


@dataclass(frozen=True)
class TrainConfig:
    """One training run. Every field may stand in the YAML file; paths may come from the command.

    The defaults of the optimizer and the losses are the published ones.
    """

    preset: str
    """The network's preset."""
    steps: int
    """Optimizer steps of the whole run; the schedule follows them."""
    network: dict[str, Any] = field(default_factory=dict)
    """Changed fields of the preset's configuration."""
    data: dict[str, Any] = field(default_factory=dict)
    """Options of `TrainingData`: the mix of sources and the degradations."""
    batch: int = 16
    """Samples of a step, in all processes together."""
    seed: int = 0
    """The run's random seed; sample i depends on it and on i alone."""
    lr: float = 1e-4
    """Learning rate of all but the backbone."""
    backbone_lr: float = 1e-5
    """Learning rate of the ViT and of the DFMs, which the published code keeps inside it."""
    dfm_lr: float | None = None
    """Learning rate of the DFMs where they shall not go with the backbone."""
    frozen_blocks: int = 0
    """Blocks, from the first, that keep their weights; the embeddings before them too."""
    weight_decay: float = 1e-4
    clip: float = 0.1
    """Largest norm of the gradient."""
    warmup: int = 0
    """Steps over which the learning rate rises from 0."""
    schedule: Literal["step", "cosine"] = "step"
    """"step": a tenth from two thirds of the run on, as published; "cosine": down to 0."""
    ema: float = 0.0
    """Decay of the moving average that becomes the weights; 0 takes the last ones."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """Arithmetic of the forward and backward pass; weights and optimizer are float32."""
    compile: bool = False
    """Have torch.compile translate the network: minutes at the start, quicker steps after."""
    losses: LossWeights = field(default_factory=LossWeights)
    box_at: Literal["peak", "truth"] = "peak"
    """The cell whose box is trained: see `losses.losses`."""
    truth_as: Literal["exact", "published"] = "exact"
    """What the score map and the box are trained to be: see `losses.losses`."""
    workers: int = 1
    """Further processes that make samples, for each that trains."""
    save_every: int = 100
    """Steps between checkpoints, each with a validation."""
    validation_samples: int = 256

    def __post_init__(self) -> None:
        check(self)
        for name in ("steps", "batch", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)} must be at least 1")
        for name in ("lr", "clip"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} {getattr(self, name)} must be above 0")
        for name in ("backbone_lr", "frozen_blocks", "weight_decay", "warmup", "workers"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} {getattr(self, name)} must not be negative")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema {self.ema} must be in [0, 1)")

    @classmethod
    def read(cls, path: Path) -> TrainConfig:
        """From a YAML file. Raises FileNotFoundError, or ValueError naming an unknown option."""
        if not path.is_file():
            raise FileNotFoundError(f"no training configuration {path}")
        values = read_yaml(path)
        try:
            return cls.of(values)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @classmethod
    def of(cls, values: Any) -> TrainConfig:
        """From plain values by name. Raises ValueError naming an unknown option."""
        if not isinstance(values, dict):
            raise ValueError("expected options by name, as in config/train/")
        unknown = sorted(set(values) - {f.name for f in dataclasses.fields(cls)}, key=str)
        if unknown:
            raise ValueError(f"unknown options {unknown}")
        try:
            if "losses" in values:
                values = {**values, "losses": LossWeights(**values["losses"])}
            return cls(**values)
        except TypeError as error:
            raise ValueError(str(error)) from None
