# SPDX-License-Identifier: Apache-2.0
"""The selective scan of Mamba (Gu and Dao, arXiv 2312.00752): every equation and every backend.

``selective_scan_reference`` is the definition, step by step. ``selective_scan_fn`` computes the
same with the fastest backend that serves the tensors given: mamba_ssm's CUDA kernel, the C++
kernel of ``csrc/selective_scan.cpp``, or ``selective_scan_chunked`` in plain torch.
"""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import ainet_ros

Result = Tensor | tuple[Tensor, Tensor]


def selective_scan_fn(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Result:
    """Selective scan with mamba_ssm's signature; see selective_scan_reference for the equations.

    u, delta, z: (batch, channels, length), of any strides; fastest on a CPU where the channels
    are contiguous, as in the transposed view of a (batch, length, channels) tensor.
    A: (channels, states). B, C: (batch, states, length) or (batch, 1, states, length).
    D, delta_bias: (channels,). All are real floating-point tensors on one device. The scan is
    computed in float32, in float64 if u is float64.

    Returns (batch, channels, length) with u's dtype and, on a CPU, u's memory layout; with
    return_last_state also the state after the last step, (batch, channels, states), in the
    dtype of the scan. Both are differentiable, but the last state not by mamba_ssm's kernel.

    Raises ValueError, naming the argument, where a shape, dtype or device does not fit.
    """
    B, C = _check(u, delta, A, B, C, D, z, delta_bias)
    if u.is_cuda and _mamba_ssm is not None:
        scan = _mamba_ssm
    elif u.device.type == "cpu" and _library is not None:
        scan = selective_scan_cpp
    else:
        scan = selective_scan_chunked
    return scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def selective_scan_reference(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Result:
    """The scan as its definition says, one step after the other; shapes as selective_scan_fn.

    delta_t = softplus(delta_t + delta_bias)                           (softplus on request)
    h_t = exp(delta_t A) h_{t-1} + delta_t B_t u_t, h_0 = 0            (AINet eqs. 1 and 2)
    y_t = C_t . h_t + D u_t                                            (AINet eqs. 3 and 4)
    out_t = y_t silu(z_t)                                              (the gate of a Mamba)

    As in mamba_ssm and the published weights, A is discretized by zero-order hold and B by Euler's
    rule (delta B), not by the zero-order hold of eq. 2.
    """
    B, C = _check(u, delta, A, B, C, D, z, delta_bias)
    dtype = _scan_dtype(u)
    x, A = u.to(dtype), A.to(dtype)
    delta = _discretize(delta.to(dtype), delta_bias, delta_softplus)
    h = x.new_zeros(*x.shape[:2], A.shape[1])  # (batch, channels, states)
    outputs = []
    steps = zip(
        x.unbind(-1), delta.unbind(-1), B.to(dtype).unbind(-1), C.to(dtype).unbind(-1), strict=True
    )
    for x_t, delta_t, B_t, C_t in steps:
        decay = torch.exp(delta_t[..., None] * A)  # (batch, channels, states)
        h = decay * h + (delta_t * x_t)[..., None] * B_t[:, None]
        outputs.append((h * C_t[:, None]).sum(-1))  # (batch, channels)
    out = _finish(torch.stack(outputs, -1), x, D, z).to(u.dtype)
    return (out, h) if return_last_state else out


# ---- Plain torch, any device --------------------------------------------------------------------

_SEGMENT = 8
"""Steps whose intermediate tensors the backward pass of the torch form holds at once."""


def selective_scan_chunked(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Result:
    """The scan in torch operations: the same as selective_scan_reference in O(sqrt(length)) steps.

    The sequence is cut into about sqrt(length) chunks of as many steps. All chunks go through
    their steps side by side, first from a zero state for their last states, then, once these
    have been carried from chunk to chunk, from their true first states for the output. A decay is
    only ever exp of a sum of delta A, never its inverse, so that nothing overflows that
    would not in the definition. Memory: O(batch channels states sqrt(length)).
    """
    B, C = _check(u, delta, A, B, C, D, z, delta_bias)
    dtype = _scan_dtype(u)
    x, A = u.to(dtype), A.to(dtype)
    delta = _discretize(delta.to(dtype), delta_bias, delta_softplus)
    length = u.shape[-1]
    steps = math.ceil(math.sqrt(length))
    chunks = math.ceil(length / steps)

    def cut(series: Tensor) -> Tensor:
        """(batch, K, length) to (steps, batch, K, chunks); steps past the end are zero."""
        padded = F.pad(series, (0, steps * chunks - length))  # delta = 0 there: the state stays
        return padded.unflatten(-1, (chunks, steps)).permute(3, 0, 1, 2)

    delta_, input_ = cut(delta), cut(delta * x)  # (steps, batch, channels, chunks)
    B_ = cut(B.to(dtype)).transpose(2, 3).unsqueeze(2)  # (steps, batch, 1, chunks, states)
    C_ = cut(C.to(dtype)).transpose(2, 3).unsqueeze(2)  # (steps, batch, 1, chunks, states)
    A_ = A.unsqueeze(1)  # (channels, 1, states)

    def advance(
        h: Tensor, delta: Tensor, input: Tensor, B: Tensor, C: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """A segment of steps in all chunks; without C, for the state alone."""
        outputs = []
        for t in range(len(delta)):
            h = torch.exp(delta[t].unsqueeze(-1) * A_) * h + input[t].unsqueeze(-1) * B[t]
            if C is not None:
                outputs.append((h * C[t]).sum(-1))  # (batch, channels, chunks)
        return h, torch.stack(outputs) if outputs else h.new_empty(0)

    def through(h: Tensor, C: Tensor | None) -> tuple[Tensor, Tensor]:
        """All steps from the states h: (batch, channels, chunks, states)."""
        outputs = []
        for k in range(0, steps, _SEGMENT):
            part = slice(k, k + _SEGMENT)
            arguments = (h, delta_[part], input_[part], B_[part], None if C is None else C[part])
            h, y = checkpoint(advance, *arguments, use_reentrant=False, preserve_rng_state=False)
            outputs.append(y)
        return h, torch.cat(outputs)

    zero = x.new_zeros(*x.shape[:2], chunks, A.shape[1])  # (batch, channels, chunks, states)
    last, _ = through(zero, None)
    decay = torch.exp(delta_.sum(0).unsqueeze(-1) * A_)  # (batch, channels, chunks, states)
    first = [zero[:, :, 0]]
    for k in range(chunks):
        first.append(decay[:, :, k] * first[k] + last[:, :, k])
    _, y = through(torch.stack(first[:-1], 2), C_)  # y: (steps, batch, channels, chunks)
    y = y.permute(1, 2, 3, 0).flatten(2)[..., :length]  # (batch, channels, length)
    out = _finish(y, x, D, z).to(u.dtype)
    return (out, first[-1]) if return_last_state else out


# ---- The C++ kernel -----------------------------------------------------------------------------

_ABI_VERSION = 1
_CHUNK = 32
"""Steps between saved states: what the kernel's backward pass recomputes at once."""
_GRAIN = 1 << 16
"""State updates that are worth a further thread."""


class _Series(ctypes.Structure):
    """`Series` of csrc/selective_scan.cpp."""

    _fields_ = [("data", ctypes.c_void_p)] + [
        (name, ctypes.c_int64) for name in ("batch", "channel", "step")
    ]

    @classmethod
    def of(cls, tensor: Tensor | None) -> _Series:
        return cls() if tensor is None else cls(tensor.data_ptr(), *tensor.stride())


class _Problem(ctypes.Structure):
    """`Problem` of csrc/selective_scan.cpp."""

    _fields_ = [
        *((n, ctypes.c_int64) for n in ("batch", "channels", "steps", "states", "chunk")),
        *((n, ctypes.c_int64) for n in ("threads", "softplus")),
        *((n, _Series) for n in ("u", "delta", "z", "B", "C")),
        *((n, ctypes.c_void_p) for n in ("A", "D", "bias")),
        ("out", _Series),
        *((n, ctypes.c_void_p) for n in ("last", "saved")),
        ("grad_out", _Series),
        ("grad_last", ctypes.c_void_p),
        *((n, _Series) for n in ("grad_u", "grad_delta", "grad_z")),
        *((n, ctypes.c_void_p) for n in ("grad_A", "grad_D", "grad_bias", "grad_B", "grad_C")),
    ]


def _load_library() -> ctypes.CDLL | None:
    """The kernel, ``_scan.so`` in the package's ``network`` folder, or None.

    The package may span the source tree and an install tree; the first that has it serves.
    """
    for folder in ainet_ros.__path__:
        path = Path(folder) / "network" / "_scan.so"
        if not path.is_file():
            continue
        library = ctypes.CDLL(str(path))
        library.ainet_scan_abi.restype = ctypes.c_int64
        if (version := library.ainet_scan_abi()) != _ABI_VERSION:
            raise ImportError(
                f"{path} has version {version} of the scan's interface and ainet_ros needs "
                f"{_ABI_VERSION}: build the package again"
            )
        return library
    return None


def _call(direction: str, dtype: torch.dtype, **fields: object) -> None:
    problem = _Problem(**fields)
    name = f"ainet_scan_{direction}_{'double' if dtype == torch.float64 else 'float'}"
    if getattr(_library, name)(ctypes.byref(problem)):
        raise MemoryError("the selective scan ran out of memory")


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _empty_like_series(series: Tensor) -> Tensor:
    """Dense memory for (batch, channels, length), the channels contiguous where series' are."""
    batch, channels, length = series.shape
    if series.stride(1) == 1:
        return series.new_empty(batch, length, channels).transpose(1, 2)
    return series.new_empty(batch, channels, length)


def _threads(u: Tensor, states: int) -> int:
    blocks = math.ceil(u.shape[1] * u.element_size() / 64)  # of channels, one SIMD register each
    return max(1, min(torch.get_num_threads(), blocks, u.numel() * states // _GRAIN))


def _shared_fields(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> dict[str, object]:
    batch, channels, length = u.shape
    return {
        "batch": batch,
        "channels": channels,
        "steps": length,
        "states": A.shape[1],
        "chunk": _CHUNK,
        "threads": _threads(u, A.shape[1]),
        "softplus": delta_softplus,
        "u": _Series.of(u),
        "delta": _Series.of(delta),
        "z": _Series.of(z),
        "B": _Series.of(B),
        "C": _Series.of(C),
        "A": _pointer(A),
        "D": _pointer(D),
        "bias": _pointer(delta_bias),
    }


@torch.library.custom_op("ainet_ros::selective_scan", mutates_args=(), device_types="cpu")
def _scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
    save: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """(out, last state, states before each chunk: empty unless `save`, for a backward pass)."""
    A, D, delta_bias = (None if v is None else v.contiguous() for v in (A, D, delta_bias))
    out, last, saved = _scan_fake(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save)
    _call(
        "forward",
        u.dtype,
        **_shared_fields(u, delta, A, B, C, D, z, delta_bias, delta_softplus),
        out=_Series.of(out),
        last=_pointer(last),
        saved=_pointer(saved) if save else None,
    )
    return out, last, saved


@_scan.register_fake
def _scan_fake(u, delta, A, B, C, D, z, delta_bias, delta_softplus, save):  # type: ignore[no-untyped-def]
    batch, channels, length = u.shape
    chunks = (length + _CHUNK - 1) // _CHUNK if save else 0
    return (
        _empty_like_series(u),
        u.new_empty(batch, channels, A.shape[1]),
        u.new_empty(batch, chunks, A.shape[1], channels),
    )


@torch.library.custom_op("ainet_ros::selective_scan_backward", mutates_args=(), device_types="cpu")
def _scan_backward(
    grad_out: Tensor,
    grad_last: Tensor | None,
    saved: Tensor,
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
    delta_softplus: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of u, delta, A, B, C, D, z, delta_bias; empty where the argument is None."""
    A, D, delta_bias = (None if v is None else v.contiguous() for v in (A, D, delta_bias))
    grad_last = None if grad_last is None else grad_last.contiguous()
    grads = _scan_backward_fake(
        grad_out, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus
    )
    grad_u, grad_delta, grad_A, _, _, grad_D, grad_z, grad_bias = grads
    shared = _shared_fields(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    # One part a thread, as each sees some channels and all of them share B and C.
    parts = u.new_empty(2, shared["threads"], u.shape[0], u.shape[2], A.shape[1])
    _call(
        "backward",
        u.dtype,
        **shared,
        saved=_pointer(saved),
        grad_out=_Series.of(grad_out),
        grad_last=_pointer(grad_last),
        grad_u=_Series.of(grad_u),
        grad_delta=_Series.of(grad_delta),
        grad_z=_Series.of(None if z is None else grad_z),
        grad_A=_pointer(grad_A),
        grad_D=None if D is None else _pointer(grad_D),
        grad_bias=None if delta_bias is None else _pointer(grad_bias),
        grad_B=_pointer(parts[0]),
        grad_C=_pointer(parts[1]),
    )
    grad_B, grad_C = parts.sum(1).transpose(2, 3)  # each (batch, states, length)
    return grad_u, grad_delta, grad_A, grad_B, grad_C.clone(), grad_D, grad_z, grad_bias


@_scan_backward.register_fake
def _scan_backward_fake(  # type: ignore[no-untyped-def]
    grad_out, grad_last, saved, u, delta, A, B, C, D, z, delta_bias, delta_softplus
):
    grad_B = u.new_empty(u.shape[0], u.shape[2], A.shape[1]).transpose(1, 2)
    return (
        _empty_like_series(u),
        _empty_like_series(delta),
        torch.empty_like(A, memory_format=torch.contiguous_format),
        grad_B,
        grad_B.clone(),
        u.new_empty(0 if D is None else u.shape[1]),
        u.new_empty(0) if z is None else _empty_like_series(z),
        u.new_empty(0 if delta_bias is None else u.shape[1]),
    )


def _setup_context(ctx, inputs, output):  # type: ignore[no-untyped-def]
    *tensors, ctx.delta_softplus, ctx.save = inputs
    ctx.save_for_backward(output[2], *tensors)


def _backward(ctx, grad_out, grad_last, _):  # type: ignore[no-untyped-def]
    if not ctx.save:
        raise RuntimeError("ainet_ros::selective_scan: save=True is needed for a backward pass")
    saved, *tensors = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    grads = _scan_backward(grad_out, grad_last, saved, *tensors, ctx.delta_softplus)
    present = (None if t is None else g for t, g in zip(tensors, grads, strict=True))
    return *present, None, None


_scan.register_autograd(_backward, setup_context=_setup_context)


def selective_scan_cpp(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
) -> Result:
    """The scan by the C++ kernel: CPU tensors; arguments as selective_scan_fn."""
    B, C = _check(u, delta, A, B, C, D, z, delta_bias)
    dtype = _scan_dtype(u)
    tensors = [None if t is None else t.to(dtype) for t in (u, delta, A, B, C, D, z, delta_bias)]
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    out, last, _ = _scan(*tensors, delta_softplus, save)
    out = out.to(u.dtype)
    return (out, last) if return_last_state else out


# ---- Common to all ------------------------------------------------------------------------------


def _scan_dtype(u: Tensor) -> torch.dtype:
    return torch.float64 if u.dtype == torch.float64 else torch.float32


def _discretize(delta: Tensor, bias: Tensor | None, softplus: bool) -> Tensor:
    if bias is not None:
        delta = delta + bias.to(delta.dtype)[:, None]
    return F.softplus(delta) if softplus else delta


def _finish(y: Tensor, x: Tensor, D: Tensor | None, z: Tensor | None) -> Tensor:
    if D is not None:
        y = y + D.to(y.dtype)[:, None] * x
    return y if z is None else y * F.silu(z.to(y.dtype))


def _check(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None,
    z: Tensor | None,
    delta_bias: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """B and C as (batch, states, length); ValueError where anything does not fit."""
    if u.ndim != 3 or u.shape[2] == 0:
        raise ValueError(
            f"u must be (batch, channels, length) with length > 0, got {tuple(u.shape)}"
        )
    if A.ndim != 2:
        raise ValueError(f"A must be (channels, states), got {tuple(A.shape)}")
    batch, channels, length = u.shape
    states = A.shape[1]
    if B.ndim == 4 and B.shape[1] == 1:
        B = B.squeeze(1)
    if C.ndim == 4 and C.shape[1] == 1:
        C = C.squeeze(1)
    shapes: dict[str, tuple[Tensor | None, tuple[int, ...]]] = {
        "u": (u, (batch, channels, length)),
        "delta": (delta, (batch, channels, length)),
        "A": (A, (channels, states)),
        "B": (B, (batch, states, length)),
        "C": (C, (batch, states, length)),
        "D": (D, (channels,)),
        "z": (z, (batch, channels, length)),
        "delta_bias": (delta_bias, (channels,)),
    }
    for name, (tensor, shape) in shapes.items():
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be a real floating-point tensor, got {tensor.dtype}")
        if tensor.device != u.device:
            raise ValueError(f"{name} is on {tensor.device} and u on {u.device}: use one device")
    return B, C


def _load_mamba_ssm() -> Callable[..., Result] | None:
    if not torch.cuda.is_available():
        return None
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn as scan
    except (ImportError, OSError):  # released versions fail so without their CUDA extension
        return None
    return scan


_mamba_ssm = _load_mamba_ssm()
_library = _load_library()
if _library is None:
    warnings.warn(
        "the compiled selective scan (ainet_ros/network/_scan.so) is not there: on a CPU the much "
        "slower torch form runs. Build the package with a C++ compiler to have it.",
        RuntimeWarning,
        stacklevel=2,
    )
