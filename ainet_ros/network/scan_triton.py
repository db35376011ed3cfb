# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The selective scan as a Triton kernel: for a GPU without mamba_ssm's, forward only.

A program has some channels of one sequence and goes through it in chunks. Within a chunk the steps
of one state are a scan of the pairs (decay, input) under (a, x) (b, y) -> (ab, bx + y), which is
associative, so that they go in parallel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

if TYPE_CHECKING:
    from .scan import Scan

CHANNELS, STEPS = 4, 64
"""Of a program's tile."""


@triton.jit
def _after(decay, state, next_decay, next_input):
    return decay * next_decay, next_decay * state + next_input


@triton.jit
def _kernel(
    u, delta, A, B, C, D, z, bias, out, last,
    u_batch, u_channel, u_step,
    delta_batch, delta_channel, delta_step,
    z_batch, z_channel, z_step,
    B_batch, B_state, B_step,
    C_batch, C_state, C_step,
    out_batch, out_channel, out_step,
    channels, steps,
    STATES: tl.constexpr, SOFTPLUS: tl.constexpr, HAS_D: tl.constexpr, HAS_Z: tl.constexpr,
    HAS_BIAS: tl.constexpr, CHANNELS: tl.constexpr, STEPS: tl.constexpr, PADDED: tl.constexpr,
):  # fmt: skip
    batch = tl.program_id(0).to(tl.int64)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    lives = channel < channels
    n = tl.arange(0, PADDED)
    h = tl.zeros((CHANNELS, PADDED), tl.float32)
    for first in range(0, steps, STEPS):
        step = first + tl.arange(0, STEPS)
        inside = step < steps
        mask = lives[:, None] & inside[None, :]  # of a (CHANNELS, STEPS) tile
        at = u + batch * u_batch + channel[:, None] * u_channel + step[None, :] * u_step
        u_ = tl.load(at, mask, 0.0)
        at = delta + batch * delta_batch + channel[:, None] * delta_channel
        delta_ = tl.load(at + step[None, :] * delta_step, mask, 0.0)
        if HAS_BIAS:
            delta_ += tl.load(bias + channel, lives, 0.0)[:, None]
        if SOFTPLUS:
            delta_ = tl.maximum(delta_, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(delta_)))
        delta_ = tl.where(inside[None, :], delta_, 0.0)  # past the end the state stays
        y = tl.zeros((CHANNELS, STEPS), tl.float32)
        for k in tl.static_range(STATES):
            A_k = tl.load(A + channel * STATES + k, lives, 0.0)
            B_k = tl.load(B + batch * B_batch + k * B_state + step * B_step, inside, 0.0)
            C_k = tl.load(C + batch * C_batch + k * C_state + step * C_step, inside, 0.0)
            before = tl.sum(tl.where(n[None, :] == k, h, 0.0), 1)  # (CHANNELS,)
            decay, from_zero = tl.associative_scan(
                (tl.exp(delta_ * A_k[:, None]), delta_ * u_ * B_k[None, :]), 1, _after
            )
            state = decay * before[:, None] + from_zero  # (CHANNELS, STEPS)
            y += state * C_k[None, :]
            end = tl.sum(tl.where((tl.arange(0, STEPS) == STEPS - 1)[None, :], state, 0.0), 1)
            h = tl.where(n[None, :] == k, end[:, None], h)
        if HAS_D:
            y += tl.load(D + channel, lives, 0.0)[:, None] * u_
        if HAS_Z:
            at = z + batch * z_batch + channel[:, None] * z_channel + step[None, :] * z_step
            z_ = tl.load(at, mask, 0.0)
            y *= z_ / (1.0 + tl.exp(-z_))
        at = out + batch * out_batch + channel[:, None] * out_channel + step[None, :] * out_step
        tl.store(at, y, mask)
    at = last + (batch * channels + channel[:, None]) * STATES + n[None, :]
    tl.store(at, h, lives[:, None] & (n < STATES)[None, :])


def scan(arguments: Scan) -> tuple[Tensor, Tensor]:
    """`selective_scan_fn` of float32 tensors on one GPU: out and the last state."""
    u, delta, A, B, C, D, z, delta_bias, delta_softplus = arguments
    batch, channels, steps = u.shape
    states = A.shape[1]
    out = torch.empty_like(u)
    last = u.new_empty(batch, channels, states)
    absent = u  # a pointer that is not followed
    grid = (batch, triton.cdiv(channels, CHANNELS))
    with torch.cuda.device_of(u):  # Triton launches on the current GPU
        _kernel[grid](
            u, delta, A.contiguous(), B, C,
            absent if D is None else D.contiguous(),
            absent if z is None else z,
            absent if delta_bias is None else delta_bias.contiguous(),
            out, last,
            *u.stride(), *delta.stride(), *(u if z is None else z).stride(),
            *B.stride(), *C.stride(), *out.stride(),
            channels, steps,
            STATES=states, SOFTPLUS=delta_softplus, HAS_D=D is not None, HAS_Z=z is not None,
            HAS_BIAS=delta_bias is not None, CHANNELS=CHANNELS, STEPS=STEPS,
            PADDED=triton.next_power_of_2(states),
        )  # fmt: skip
    return out, last
