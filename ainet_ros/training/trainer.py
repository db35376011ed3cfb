# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The training loop: AdamW on the published losses, checkpoints that resume to the step."""

from __future__ import annotations

import copy
import dataclasses
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from ainet_ros.files import replacing, write_whole
from ainet_ros.network import AINet, Output
from ainet_ros.network.dfm import Fusion
from ainet_ros.network.ofm import OrderDynamicMamba
from ainet_ros.tracker import weights
from ainet_ros.tracker.crop import normalize

from .config import TrainConfig
from .data import contact_sheet
from .log import COLUMNS, Log
from .losses import Losses, LossWeights, losses
from .processes import Processes

Batch = dict[str, Tensor]


class Trainer:
    """One run of `config` on `network`, whose files lie in `output`.

    checkpoint.pt resumes the run to the exact step; weights.safetensors is the network so far
    (the moving average where there is one); log.csv has the losses and curves.png draws them;
    samples.png shows what the network is fed. Every file is written whole or not at all.

    Each of several processes has a Trainer of the same arguments but `processes`; the first one
    logs, validates and saves. Raises ValueError where the batch cannot be shared among them, or
    `output` holds a run of another configuration.
    """

    def __init__(
        self,
        config: TrainConfig,
        network: AINet,
        train: Dataset,
        validation: Dataset,
        output: Path,
        processes: Processes,
    ) -> None:
        self.config, self.output, self.processes = config, output, processes
        self.device = processes.device
        self.share = processes.share(config.batch)
        self.network = network.to(self.device)
        self.train_data, self.validation_data = train, validation
        self.averaged = copy.deepcopy(self.network).eval() if config.ema else self.network
        self._freeze()
        if config.compile:
            self.network.compile()
        self.model = processes.spread(self.network)
        self.optimizer = torch.optim.AdamW(
            self._parameter_groups(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.step = 0
        output.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        if self.checkpoint_path.exists():
            self._resume()
        steps = processes.mean(torch.tensor(float(self.step), device=self.device))
        if steps != self.step:
            raise ValueError(f"{output} is not the same folder for all processes of the run")

    @property
    def checkpoint_path(self) -> Path:
        return self.output / "checkpoint.pt"

    def run(self) -> None:
        """Train to the last step, or to the end of the process: nothing but time is lost then.

        Raises ValueError where a gradient is not finite, OSError where a file cannot be written.
        """
        config, first = self.config, self.processes.first
        log = Log(self.output, self.step) if first else None
        if first:
            self._write_samples()
        started = time.monotonic()
        progress = tqdm(
            total=config.steps,
            initial=self.step,
            unit="step",
            desc=config.preset,
            disable=not first,
        )
        recent: list[Losses] = []
        for batch in self._batches():
            recent.append(self.optimize(batch))
            self.step += 1
            progress.update()
            if self.step % 10 == 0:
                progress.set_postfix(loss=f"{recent[-1].total:.3f}", iou=f"{recent[-1].iou:.3f}")
            if self.step % config.save_every == 0 or self.step == config.steps:
                averages = self._averages(recent)
                if log is not None:
                    # The log goes first: a row that a kill leaves without its checkpoint is cut
                    # off on resuming, a checkpoint without its row would leave a gap.
                    log.write(self._row(averages, time.monotonic() - started))
                    self._save()
                recent, started = [], time.monotonic()
        progress.close()

    def _batches(self) -> Iterator[Batch]:
        """This process's part of each batch that is left."""
        batch = self.config.batch
        # Sample i depends on the seed and on i alone, so a resumed run goes on with the next.
        first = self.step * batch + self.processes.rank * self.share
        parts = (
            list(range(start, start + self.share))
            for start in range(first, self.config.steps * batch, batch)
        )
        return iter(
            DataLoader(
                self.train_data,
                batch_sampler=parts,
                num_workers=self.config.workers,
                pin_memory=self.device.type == "cuda",
                # Its own, as drawing the workers' seeds would shift a resumed run's.
                generator=torch.Generator(),
            )
        )

    def optimize(self, batch: Batch) -> Losses:
        """One step of the optimizer at the rate that the run has come to.

        Raises ValueError where the gradient is not finite.
        """
        scale = self._schedule()
        for group in self.optimizer.param_groups:
            group["lr"] = group["base_lr"] * scale
        self.optimizer.zero_grad(set_to_none=True)
        result = self.losses(batch)
        result.total.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        if not norm.isfinite():  # the next checkpoint would be of no use, and the only one
            raise ValueError(
                f"step {self.step + 1}: the gradient is {float(norm)}; {self.checkpoint_path} is "
                "of the last step that was saved, if there is one: go on from it with lower "
                "rates, or in float32"
            )
        self.optimizer.step()
        self._average()
        return Losses(**{k: v.detach() for k, v in vars(result).items()})

    def losses(self, batch: Batch) -> Losses:
        """What this process's part of a batch costs the network in training."""
        self.network.train()
        present = batch["present"].to(self.device)
        targets = self.processes.mean(present.sum().float())
        return losses(
            self._forward(self.model, batch),
            batch["box"].to(self.device),
            present,
            self.config.losses,
            self.config.box_at,
            self.config.truth_as,
            targets.clamp(min=1 / self.processes.count),
        )

    def _forward(self, model: nn.Module, batch: Batch) -> Output:
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16"
        ):
            return model(
                normalize(batch["template"].to(self.device, non_blocking=True)),
                normalize(batch["search"].to(self.device, non_blocking=True)),
                batch["template_box"].to(self.device),
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

    def _freeze(self) -> None:
        """Keep what the configuration freezes, and what no gradient reaches."""
        network, blocks = self.network, self.config.frozen_blocks
        if blocks:
            network.backbone.requires_grad_(False)
            for block in network.backbone.blocks[blocks:]:
                block.requires_grad_(True)
        for block in network.backbone.blocks[network.config.interaction_layers[-1] + 1 :]:
            block.requires_grad_(False)
        if network.ofm is None:  # the head sees what the last DFM has fused, alone
            for module in network.dfm[:-1].modules():
                if isinstance(module, Fusion):
                    module.requires_grad_(False)
        mixer = network.ofm.mixer if network.ofm is not None else None
        if isinstance(mixer, OrderDynamicMamba) and mixer.dynamic and not mixer.straight_through:
            mixer.order_net.requires_grad_(False)

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

    def _averages(self, recent: list[Losses]) -> Losses:
        """The means of the losses over steps and processes."""
        terms = torch.stack([torch.stack(list(vars(entry).values())) for entry in recent])
        means = self.processes.mean(terms.double().mean(dim=0))
        return Losses(*means)

    def _row(self, averages: Losses, seconds: float) -> dict[str, str]:
        """A row of the log."""
        values = [
            str(self.step),
            str(self.step * self.config.batch),
            f"{seconds:.1f}",
            f"{self.optimizer.param_groups[-1]['lr']:.3g}",
            *(f"{float(value):.5f}" for value in [*vars(averages).values(), *self._validate()]),
        ]
        row = dict(zip(COLUMNS, values, strict=True))
        tqdm.write(" ".join(f"{name}={value}" for name, value in row.items()))
        return row

    def _save(self) -> None:
        # The checkpoint goes last: if it is the run's last one, nothing comes after it.
        weights.save(
            self.averaged,
            self.output / "weights.safetensors",
            {"preset": self.config.preset, "steps": str(self.step)},
        )
        state = {
            "step": self.step,
            "config": dataclasses.asdict(self.config),
            "network": self.network.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            # The same in every process.
            "rng": torch.get_rng_state(),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        with replacing(self.checkpoint_path) as partial:
            torch.save(state, partial)

    def _resume(self) -> None:
        state = torch.load(self.checkpoint_path, map_location=self.device, weights_only=True)
        if not self._is_of(state["config"]):
            raise ValueError(
                f"{self.checkpoint_path} is of another configuration: choose another output "
                "folder, or remove it to start again"
            )
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"].cpu())
        if self.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)

    def _is_of(self, saved: dict[str, Any]) -> bool:
        """Whether a saved configuration is this run's; workers make no difference to samples."""
        try:
            config = TrainConfig(**{**saved, "losses": LossWeights(**saved["losses"])})
        except TypeError:
            return False
        return dataclasses.replace(config, workers=self.config.workers) == self.config

    def _write_samples(self) -> None:
        sheet = contact_sheet([self.train_data[i] for i in range(32)])
        _, data = cv2.imencode(".png", cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
        write_whole(self.output / "samples.png", data.tobytes())


def mean(values: list[float]) -> float:
    return sum(values) / len(values) if values else math.nan
