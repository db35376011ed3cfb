# SPDX-License-Identifier: Apache-2.0
"""The training loop: AdamW on the published losses, checkpoints that resume to the step."""

from __future__ import annotations

import copy
import csv
import dataclasses
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ainet_ros.network import AINet, Output
from ainet_ros.tracker import weights
from ainet_ros.tracker.tracker import IMAGE_MEAN, IMAGE_STD

from .config import TrainConfig
from .data import contact_sheet
from .losses import Losses, losses

Batch = dict[str, Tensor]
LOG_COLUMNS = [
    "step",
    "samples",
    "seconds",
    "lr",
    "loss",
    "giou",
    "l1",
    "focal",
    "iou",
    "validation_iou",
    "score_present",
    "score_absent",
]


class Trainer:
    """One run of `config` on `network`, whose files lie in `output`.

    checkpoint.pt resumes the run to the exact step; weights.safetensors is the network so far
    (the moving average where there is one); log.csv has the losses; samples.png shows what the
    network is fed. Every file is written whole or not at all.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: AINet,
        train: Dataset,
        validation: Dataset,
        output: Path,
        device: torch.device,
    ) -> None:
        self.config, self.output, self.device = config, output, device
        self.network = network.to(self.device)
        self.train_data, self.validation_data = train, validation
        self.averaged = copy.deepcopy(self.network).eval() if config.ema else self.network
        if config.frozen_blocks:
            backbone = self.network.backbone
            backbone.requires_grad_(False)
            for block in backbone.blocks[config.frozen_blocks :]:
                block.requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            self._parameter_groups(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.step = 0
        output.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        if self.checkpoint_path.exists():
            self._resume()

    @property
    def checkpoint_path(self) -> Path:
        return self.output / "checkpoint.pt"

    def run(self) -> None:
        """Train to the last step, or to the end of the process: nothing but time is lost then."""
        config = self.config
        self._write_samples()
        started = time.monotonic()
        progress = tqdm(total=config.steps, initial=self.step, unit="step", desc=config.preset)
        recent: list[Losses] = []
        for batch in self._batches():
            recent.append(self._optimize(batch))
            self.step += 1
            progress.update()
            if self.step % 10 == 0:
                progress.set_postfix(loss=f"{recent[-1].total:.3f}", iou=f"{recent[-1].iou:.3f}")
            if self.step % config.save_every == 0 or self.step == config.steps:
                # The log goes first: a row that a kill leaves without its checkpoint is cut off
                # on resuming, a checkpoint without its row would leave a gap.
                self._log(recent, time.monotonic() - started)
                self._save()
                recent, started = [], time.monotonic()
        progress.close()

    def _batches(self) -> Iterator[Batch]:
        config = self.config
        # Sample i depends on the seed and on i alone, so a resumed run goes on with the next.
        indices = range(self.step * config.batch, config.steps * config.batch)
        return iter(
            DataLoader(
                self.train_data,
                config.batch,
                sampler=indices,
                num_workers=config.workers,
                drop_last=True,
                # Its own, as drawing the workers' seeds would shift a resumed run's.
                generator=torch.Generator(),
            )
        )

    def _optimize(self, batch: Batch) -> Losses:
        self.network.train()
        scale = self._schedule()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        self.optimizer.zero_grad(set_to_none=True)
        result = self._losses(self.network, batch)
        result.total.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        self._average()
        return Losses(**{k: v.detach() for k, v in vars(result).items()})

    def _forward(self, network: AINet, batch: Batch) -> Output:
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
        ):
            return network(
                normalize(batch["template"].to(self.device)),
                normalize(batch["search"].to(self.device)),
                batch["template_box"].to(self.device),
            )

    def _losses(self, network: AINet, batch: Batch) -> Losses:
        return losses(
            self._forward(network, batch),
            batch["box"].to(self.device),
            batch["present"].to(self.device),
            self.config.losses,
            self.config.box_at,
        )

    def _schedule(self) -> float:
        """The factor on the learning rates at this step."""
        config = self.config
        if self.step < config.warmup:
            return (self.step + 1) / config.warmup
        if config.schedule == "step":
            return 0.1 if self.step >= config.steps * 2 // 3 else 1.0
        done = (self.step - config.warmup) / max(1, config.steps - config.warmup)
        return 0.5 * (1 + math.cos(math.pi * done))

    def _parameter_groups(self) -> list[dict[str, Any]]:
        config = self.config
        rates = {
            "backbone": config.backbone_lr,
            "dfm": config.backbone_lr if config.dfm_lr is None else config.dfm_lr,
            "rest": config.lr,
        }
        groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
        for name, parameter in self.network.named_parameters():
            module = name.split(".")[0]
            if parameter.requires_grad:
                groups[module if module in rates else "rest"].append(parameter)
        return [
            {"params": parameters, "lr": rates[name], "base_lr": rates[name]}
            for name, parameters in groups.items()
        ]

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average; its decay grows with the steps so that the start is forgotten."""
        if not self.config.ema:
            return
        decay = min(self.config.ema, (1 + self.step) / (10 + self.step))
        for average, current in zip(
            self.averaged.state_dict().values(), self.network.state_dict().values(), strict=True
        ):
            if average.is_floating_point():
                average.lerp_(current, 1 - decay)
            else:
                average.copy_(current)

    @torch.no_grad()
    def _validate(self) -> tuple[float, float, float]:
        """Mean IoU where the target is, and the mean peak score where it is and where not."""
        network = self.averaged.eval()
        ious, present_scores, absent_scores = [], [], []
        indices = range(self.config.validation_samples)
        for batch in DataLoader(
            self.validation_data, self.config.batch, sampler=indices, generator=torch.Generator()
        ):
            output = self._forward(network, batch)
            peak = output.score_map.flatten(1).amax(dim=1).cpu()
            present = batch["present"]
            result = losses(
                output,
                batch["box"].to(self.device),
                present.to(self.device),
                self.config.losses,
                "peak",
            )
            ious += [float(result.iou)] * int(present.sum())
            present_scores += peak[present].tolist()
            absent_scores += peak[~present].tolist()
        return mean(ious), mean(present_scores), mean(absent_scores)

    def _log(self, recent: list[Losses], seconds: float) -> None:
        averages = {
            name: mean([float(getattr(entry, name)) for entry in recent])
            for name in ("giou", "l1", "focal", "iou")
        }
        validation = self._validate()
        row = [
            self.step,
            self.step * self.config.batch,
            f"{seconds:.1f}",
            f"{self.optimizer.param_groups[-1]['lr']:.3g}",
            f"{mean([float(entry.total) for entry in recent]):.5f}",
            *(f"{value:.5f}" for value in [*averages.values(), *validation]),
        ]
        path = self.output / "log.csv"
        new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(LOG_COLUMNS)
            writer.writerow(row)
        tqdm.write(" ".join(f"{k}={v}" for k, v in zip(LOG_COLUMNS, row, strict=True)))

    def _save(self) -> None:
        state = {
            "step": self.step,
            "config": dataclasses.asdict(self.config),
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "rng": torch.get_rng_state(),
        }
        partial = self.checkpoint_path.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint_path)
        weights.save(
            self.averaged,
            self.output / "weights.safetensors",
            {"preset": self.config.preset, "steps": str(self.step)},
        )

    def _resume(self) -> None:
        state = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
        if state["config"] != dataclasses.asdict(self.config):
            raise ValueError(
                f"{self.checkpoint_path} is of another configuration: choose another output "
                "folder, or remove it to start again"
            )
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
        log = self.output / "log.csv"
        if log.exists():
            head, *rows = log.read_text().splitlines()
            kept = [row for row in rows if int(row.split(",")[0]) <= self.step]
            log.write_text("\n".join([head, *kept]) + "\n")

    def _write_samples(self) -> None:
        sheet = contact_sheet([self.train_data[i] for i in range(32)])
        cv2.imwrite(str(self.output / "samples.png"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))


def normalize(images: Tensor) -> Tensor:
    """uint8 (..., 3, H, W) in RGB order to float32 by ImageNet's mean and deviation."""
    mean, std = (
        torch.tensor(v, device=images.device)[:, None, None] * 255 for v in (IMAGE_MEAN, IMAGE_STD)
    )
    return (images.float() - mean) / std


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
