# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The selective scan of Mamba (Gu and Dao, arXiv 2312.00752), its equations and its backends."""

from __future__ import annotations

import ctypes
import math
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import ainet_ros


class Scan(NamedTuple):
    """A scan's arguments: see `selective_scan_fn`."""

    u: Tensor
    delta: Tensor
    A: Tensor
    B: Tensor
    C: Tensor
    D: Tensor | None
    z: Tensor | None
    delta_bias: Tensor | None
    delta_softplus: bool

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        return self[:-1]


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
    backend: str | None = None,
) -> Any:
    """The selective scan, with mamba_ssm's signature and a choice of backend:

        delta_t = softplus(delta_t + delta_bias)                  (softplus on request)
        h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t, h_0 = 0   (AINet eqs. 1 and 2)
        y_t = C_t . h_t + D u_t                                   (AINet eqs. 3 and 4)
        out_t = y_t silu(z_t)                                     (the gate of a Mamba, with z)

    A is discretized by zero-order hold, and B by Euler's rule where eq. 2 writes the hold, as in
    mamba_ssm and the published weights.

    Args:
        u, delta, z: (batch, channels, length), strided at will; fastest on a CPU where the
            channels are contiguous, as in the transposed view of (batch, length, channels).
        A: (channels, states).
        B, C: (batch, states, length) or (batch, 1, states, length).
        D, delta_bias: (channels,).
        delta_softplus: whether delta goes through softplus.
        return_last_state: whether to return the state after the last step too.
        backend: "reference", step by step, which defines the others; "torch", for any device;
            "cpp", csrc/selective_scan.cpp, for CPU tensors; "cuda", mamba_ssm's kernel; "triton",
            scan_triton.py, for a GPU without that and no gradient. By default the fastest that is
            there and takes the tensors.

    All tensors are real, floating-point and on one device. The scan is computed in float64 where
    u is float64, else in float32.

    Returns:
        out: (batch, channels, length), u's dtype; and with return_last_state the last h: (batch,
        channels, states), the scan's dtype. Both are differentiable; through mamba_ssm's kernel
        only out is.

    Raises:
        ValueError: a shape, dtype or device does not fit, the backend is not there, or triton is
            asked for a gradient.
        MemoryError: the C++ kernel gets no memory.
    """
    if B.ndim == 4 and B.shape[1] == 1:
        B = B.squeeze(1)
    if C.ndim == 4 and C.shape[1] == 1:
        C = C.squeeze(1)
    scan = Scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    _check(scan)
    if backend is None:
        backend = _fastest(u)
    elif backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    dtype = torch.float64 if u.dtype == torch.float64 else torch.float32
    tensors = (None if t is None else t.to(dtype) for t in scan.tensors)
    out, last = BACKENDS[backend](Scan._make([*tensors, delta_softplus]))
    out = out.to(u.dtype)
    return (out, last) if return_last_state else out


def _fastest(u: Tensor) -> str:
    if torch.onnx.is_in_onnx_export():
        return "torch"  # which is made of what ONNX has too
    if u.is_cuda and u.dtype != torch.float64:
        if _mamba_ssm is not None:
            return "cuda"
        if _triton_scan is not None and not torch.is_grad_enabled():
            return "triton"
    return "cpp" if u.device.type == "cpu" and _library is not None else "torch"


def _check(scan: Scan) -> None:
    u, A = scan.u, scan.A
    if u.ndim != 3 or u.shape[2] == 0:
        raise ValueError(
            f"u must be (batch, channels, length) with length > 0, got {tuple(u.shape)}"
        )
    if A.ndim != 2:
        raise ValueError(f"A must be (channels, states), got {tuple(A.shape)}")
    batch, channels, length = u.shape
    states = A.shape[1]
    series, of_states = (batch, channels, length), (batch, states, length)
    shapes = (
        *(series, series, (channels, states), of_states, of_states),
        *((channels,), series, (channels,)),
    )
    for name, tensor, shape in zip(Scan._fields, scan.tensors, shapes, strict=False):
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise ValueError(f"{name} must have shape {shape}, got {tuple(tensor.shape)}")
        if not tensor.is_floating_point():
            raise ValueError(f"{name} must be a real floating-point tensor, got {tensor.dtype}")
        if tensor.device != u.device:
            raise ValueError(f"{name} is on {tensor.device} and u on {u.device}: use one device")


# ---- Backends: a scan, all of it in the scan's dtype, to (out, last state) ----------------------


def _reference(scan: Scan) -> tuple[Tensor, Tensor]:
    """The equations of selective_scan_fn as they stand: discretized, then step by step.

    As in mamba_ssm's own reference and the published network without a GPU, the discretized A and
    B of all steps are in memory at once: twice batch * channels * length * states numbers.
    """
    u, _, A, B, C = scan[:5]
    delta = _step_sizes(scan)
    decays = torch.exp(delta.unsqueeze(-1) * A.unsqueeze(1))  # (batch, channels, length, states)
    inputs = (delta * u).unsqueeze(-1) * B.transpose(1, 2).unsqueeze(1)  # the same
    h = u.new_zeros(*u.shape[:2], A.shape[1])  # (batch, channels, states)
    outputs = []
    for decay, input, C_t in zip(decays.unbind(2), inputs.unbind(2), C.unbind(2), strict=True):
        h = decay * h + input
        outputs.append((h * C_t.unsqueeze(1)).sum(-1))  # (batch, channels)
    y = torch.stack(outputs, -1)  # (batch, channels, length)
    return _finish(y, scan), h


_SEGMENT = 8
"""Steps whose intermediate tensors the backward pass of the torch form holds at once."""


def _chunked(scan: Scan) -> tuple[Tensor, Tensor]:
    """The scan in torch operations, O(sqrt(length)) of them one after the other.

    The sequence is cut into about sqrt(length) chunks of as many steps. All chunks go through
    their steps side by side: first from a zero state, for their last states; then, when these
    have been carried on from chunk to chunk, from their true first states, for the output. A decay
    is always exp of a sum of delta A, never an inverse of it, so that nothing overflows which
    does not in the definition. Memory: O(batch channels states sqrt(length)).
    """
    u, _, A, B, C = scan[:5]
    delta = _step_sizes(scan)
    length = u.shape[-1]
    steps = math.ceil(math.sqrt(length))
    chunks = math.ceil(length / steps)

    def cut(series: Tensor) -> Tensor:
        """(batch, K, length) to (steps, batch, K, chunks)."""
        padded = F.pad(series, (0, steps * chunks - length))  # delta = 0 there: the state stays
        return padded.unflatten(-1, (chunks, steps)).permute(3, 0, 1, 2)

    deltas, inputs = cut(delta), cut(delta * u)  # (steps, batch, channels, chunks)
    Bs, Cs = (cut(s).transpose(2, 3).unsqueeze(2) for s in (B, C))  # (steps, batch, 1, chunks, N)
    A = A.unsqueeze(1)  # (channels, 1, states)

    def segment(h: Tensor, part: slice, output: bool) -> tuple[Tensor, ...]:
        """The states after some steps of all chunks and, on request, the y of each step."""
        outputs = []
        for delta_t, input_t, B_t, C_t in zip(
            deltas[part], inputs[part], Bs[part], Cs[part], strict=True
        ):
            h = torch.exp(delta_t.unsqueeze(-1) * A) * h + input_t.unsqueeze(-1) * B_t
            if output:
                outputs.append((h * C_t).sum(-1))  # (batch, channels, chunks)
        return h, *outputs

    def through(h: Tensor, output: bool) -> tuple[Tensor, list[Tensor]]:
        """All steps, from the states h: (batch, channels, chunks, states)."""
        outputs: list[Tensor] = []
        for k in range(0, steps, _SEGMENT):
            part = slice(k, k + _SEGMENT)
            if torch.is_grad_enabled():
                h, *ys = checkpoint(
                    segment, h, part, output, use_reentrant=False, preserve_rng_state=False
                )
            else:
                h, *ys = segment(h, part, output)
            outputs += ys
        return h, outputs

    zero = u.new_zeros(*u.shape[:2], chunks, A.shape[-1])  # (batch, channels, chunks, states)
    from_zero, _ = through(zero, output=False)
    decay = torch.exp(deltas.sum(0).unsqueeze(-1) * A)  # (batch, channels, chunks, states)
    first = [zero[:, :, 0]]  # the states before each chunk, and the last
    for decay_c, from_zero_c in zip(decay.unbind(2), from_zero.unbind(2), strict=True):
        first.append(decay_c * first[-1] + from_zero_c)
    _, outputs = through(torch.stack(first[:-1], 2), output=True)
    y = torch.stack(outputs, -1).flatten(2)[..., :length]  # (batch, channels, length)
    return _finish(y, scan), first[-1]


def _step_sizes(scan: Scan) -> Tensor:
    delta = scan.delta
    if scan.delta_bias is not None:
        delta = delta + scan.delta_bias[:, None]
    return F.softplus(delta) if scan.delta_softplus else delta


def _finish(y: Tensor, scan: Scan) -> Tensor:
    if scan.D is not None:
        y = y + scan.D[:, None] * scan.u
    return y if scan.z is None else y * F.silu(scan.z)


def _load_mamba_ssm() -> Callable[..., tuple[Tensor, Tensor]] | None:
    if not torch.cuda.is_available():
        return None
    try:
        from mamba_ssm.ops.selective_scan_interface import selective_scan_fn as kernel
    except (ImportError, OSError):  # released versions fail so without their CUDA extension
        return None
    return kernel


_mamba_ssm = _load_mamba_ssm()


def _cuda(scan: Scan) -> tuple[Tensor, Tensor]:
    if _mamba_ssm is None:
        raise ValueError("backend 'cuda' needs a GPU and mamba_ssm with its CUDA extension")
    return _mamba_ssm(*scan, return_last_state=True)


def _load_triton() -> Callable[[Scan], tuple[Tensor, Tensor]] | None:
    if not torch.cuda.is_available():
        return None
    try:
        from .scan_triton import scan
    except ImportError:
        return None
    return scan


_triton_scan = _load_triton()


def _triton(scan: Scan) -> tuple[Tensor, Tensor]:
    if _triton_scan is None:
        raise ValueError("backend 'triton' needs a GPU and the package triton")
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in scan.tensors):
        raise ValueError("backend 'triton' has no gradient: use torch.no_grad(), or 'torch'")
    return _triton_scan(scan)


# ---- The C++ kernel -----------------------------------------------------------------------------

_ABI_VERSION = 1
_CHUNK = 64
"""Steps between saved states: what the kernel's backward pass computes again at once."""
_GRAIN = 1 << 17
"""State updates that are worth a further thread."""


def _fields(type_: type[ctypes._SimpleCData] | type[ctypes.Structure], names: str) -> list[Any]:
    return [(name, type_) for name in names.split()]


class _Series(ctypes.Structure):
    """`Series` of csrc/selective_scan.cpp."""

    _fields_ = [*_fields(ctypes.c_void_p, "data"), *_fields(ctypes.c_int64, "batch channel step")]

    @classmethod
    def of(cls, tensor: Tensor | None) -> _Series:
        return cls() if tensor is None else cls(tensor.data_ptr(), *tensor.stride())


class _Problem(ctypes.Structure):
    """`Problem` of csrc/selective_scan.cpp."""

    _fields_ = [
        *_fields(ctypes.c_int64, "batch channels steps states chunk threads softplus"),
        *_fields(_Series, "u delta z B C"),
        *_fields(ctypes.c_void_p, "A D bias"),
        *_fields(_Series, "out"),
        *_fields(ctypes.c_void_p, "last saved"),
        *_fields(_Series, "grad_out"),
        *_fields(ctypes.c_void_p, "grad_last"),
        *_fields(_Series, "grad_u grad_delta grad_z"),
        *_fields(ctypes.c_void_p, "grad_A grad_D grad_bias grad_B grad_C"),
    ]


def _load_library() -> ctypes.CDLL | None:
    """The kernel: ``network/_scan.so`` in the package, or None.

    The package may span a source tree and an install tree; the first that has the file serves.
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
    warnings.warn(
        "the compiled selective scan (ainet_ros/network/_scan.so) is not there: on a CPU a much "
        "slower form runs. Build the package with a C++ compiler to have it.",
        RuntimeWarning,
        stacklevel=3,
    )
    return None


_library = _load_library()


def _cpp(scan: Scan) -> tuple[Tensor, Tensor]:
    if _library is None:
        raise ValueError("backend 'cpp' is not there: build the package with a C++ compiler")
    save = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in scan.tensors)
    out, last, _ = _scan(*scan, save)
    return out, last


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
    """(out, last state, states before each chunk: none unless `save`, for a backward pass)."""
    scan = _scan_of(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    out, last, saved = _scan_outputs(u, A, save)
    _call(
        "forward",
        u.dtype,
        **_common_fields(scan),
        out=_Series.of(out),
        last=_pointer(last),
        saved=_pointer(saved) if save else None,
    )
    return out, last, saved


def _scan_outputs(u: Tensor, A: Tensor, save: bool) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, length = u.shape
    states = A.shape[1]
    chunks = (length + _CHUNK - 1) // _CHUNK if save else 0
    return (
        _empty_like_series(u),
        u.new_empty(batch, channels, states),
        u.new_empty(batch, chunks, states, channels),
    )


@_scan.register_fake
def _(u: Tensor, delta: Tensor, A: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    return _scan_outputs(u, A, save=others[-1])


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
    """Gradients of u, delta, A, B, C, D, z (empty where there is no z), delta_bias."""
    scan = _scan_of(u, delta, A, B, C, D, z, delta_bias, delta_softplus)
    grad_last = _contiguous(grad_last)
    gradients = _scan_gradients(u, delta, A, z)
    grad_u, grad_delta, grad_A, grad_B, grad_C, grad_D, grad_z, grad_bias = gradients
    common = _common_fields(scan)
    # A part for each thread, which has some of the channels: B and C are common to all.
    parts = u.new_empty(2, common["threads"], u.shape[0], u.shape[2], A.shape[1])
    _call(
        "backward",
        u.dtype,
        **common,
        saved=_pointer(saved),
        grad_out=_Series.of(grad_out),
        grad_last=_pointer(grad_last),
        grad_u=_Series.of(grad_u),
        grad_delta=_Series.of(grad_delta),
        grad_z=_Series.of(None if z is None else grad_z),
        grad_A=_pointer(grad_A),
        grad_D=_pointer(grad_D),
        grad_bias=_pointer(grad_bias),
        grad_B=_pointer(parts[0]),
        grad_C=_pointer(parts[1]),
    )
    torch.sum(parts[0], 0, out=grad_B.transpose(1, 2))  # (batch, length, states)
    torch.sum(parts[1], 0, out=grad_C.transpose(1, 2))
    return gradients


def _scan_gradients(
    u: Tensor, delta: Tensor, A: Tensor, z: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    batch, channels, length = u.shape
    states = A.shape[1]
    return (
        _empty_like_series(u),
        _empty_like_series(delta),
        u.new_empty(channels, states),
        u.new_empty(batch, length, states).transpose(1, 2),
        u.new_empty(batch, length, states).transpose(1, 2),
        u.new_empty(channels),
        u.new_empty(0) if z is None else _empty_like_series(z),
        u.new_empty(channels),
    )


@_scan_backward.register_fake
def _(
    grad_out: Tensor, grad_last: Tensor | None, saved: Tensor, *arguments: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    scan = Scan(*arguments)
    return _scan_gradients(scan.u, scan.delta, scan.A, scan.z)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, ctx.delta_softplus, ctx.save = inputs
    ctx.save_for_backward(output[2], *tensors)


def _backward(
    ctx: Any, grad_out: Tensor | None, grad_last: Tensor | None, grad_saved: None
) -> tuple[Tensor | None, ...]:
    if not ctx.save:
        raise RuntimeError("ainet_ros::selective_scan has a backward pass only with save=True")
    saved, *tensors = ctx.saved_tensors
    if grad_out is None:
        grad_out = torch.zeros_like(tensors[0])
    gradients = _scan_backward(grad_out, grad_last, saved, *tensors, ctx.delta_softplus)
    of_given = (None if t is None else g for t, g in zip(tensors, gradients, strict=True))
    return *of_given, None, None


_scan.register_autograd(_backward, setup_context=_setup_context)


def _call(direction: str, dtype: torch.dtype, **fields: Any) -> None:
    name = f"ainet_scan_{direction}_{'double' if dtype == torch.float64 else 'float'}"
    if getattr(_library, name)(ctypes.byref(_Problem(**fields))) != 0:
        raise MemoryError("the selective scan could not allocate its buffers")


def _scan_of(*arguments: Any) -> Scan:
    """A scan as the kernel takes it: no odd addresses; A, D and delta_bias contiguous."""
    scan = Scan._make(_aligned(one) if isinstance(one, Tensor) else one for one in arguments)
    return scan._replace(
        A=scan.A.contiguous(), D=_contiguous(scan.D), delta_bias=_contiguous(scan.delta_bias)
    )


def _common_fields(scan: Scan) -> dict[str, Any]:
    u = scan.u
    batch, channels, length = u.shape
    states = scan.A.shape[1]
    vectors = math.ceil(channels * u.element_size() / 64)  # of channels, as AVX-512 has them
    return {
        "batch": batch,
        "channels": channels,
        "steps": length,
        "states": states,
        "chunk": _CHUNK,
        "threads": max(1, min(torch.get_num_threads(), vectors, u.numel() * states // _GRAIN)),
        "softplus": scan.delta_softplus,
        "u": _Series.of(u),
        "delta": _Series.of(scan.delta),
        "z": _Series.of(scan.z),
        "B": _Series.of(scan.B),
        "C": _Series.of(scan.C),
        "A": _pointer(scan.A),
        "D": _pointer(scan.D),
        "bias": _pointer(scan.delta_bias),
    }


def _aligned(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where it lies in a buffer as no compiler expects a number to."""
    return tensor.clone() if tensor.data_ptr() % tensor.element_size() else tensor


def _pointer(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _contiguous(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.contiguous()


def _empty_like_series(series: Tensor) -> Tensor:
    """Dense memory for (batch, channels, length), the channels contiguous where series' are."""
    batch, channels, length = series.shape
    if series.stride(1) == 1:
        return series.new_empty(batch, length, channels).transpose(1, 2)
    return series.new_empty(batch, channels, length)


BACKENDS: dict[str, Callable[[Scan], tuple[Tensor, Tensor]]] = {
    "reference": _reference,
    "torch": _chunked,
    "cpp": _cpp,
    "cuda": _cuda,
    "triton": _triton,
}


def available_backends(device: torch.device | str) -> list[str]:
    """The backends that are there for tensors on the device."""
    special: dict[str, dict[str, object]] = {
        "cpu": {"cpp": _library},
        "cuda": {"triton": _triton_scan, "cuda": _mamba_ssm},
    }
    extra = special.get(torch.device(device).type, {})
    return ["reference", "torch", *(name for name, there in extra.items() if there)]
