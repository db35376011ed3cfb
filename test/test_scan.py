# SPDX-License-Identifier: Apache-2.0
# SPDX-FileCopyrightText: the authors of ainet_ros
"""The selective scan: every backend against the step-by-step reference."""

import importlib
import os
import warnings

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ainet_ros.bench.measure import memory_growth
from ainet_ros.network import scan
from ainet_ros.network.scan import selective_scan_fn

BACKENDS = ["torch", "cpp"]
ARGUMENTS = ["u", "delta", "A", "B", "C", "D", "z", "delta_bias"]


def arguments(
    batch, channels, length, states, *, optional=True, dtype=torch.float32, seed=0, by_step=True
):
    """Random tensors by argument name; `by_step` lays the channels of one step side by side."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=dtype)

    def series(size):
        if by_step:
            return normal(batch, length, size).transpose(1, 2)
        return normal(batch, size, length)

    tensors = {
        "u": series(channels),
        "delta": series(channels) - 2,
        "A": -torch.exp(normal(channels, states)),
        "B": series(states),
        "C": series(states),
    }
    if optional:
        tensors["D"] = normal(channels)
        tensors["z"] = series(channels)
        tensors["delta_bias"] = normal(channels)
    return tensors


def run(tensors, backend=None, **options):
    options = {"delta_softplus": True, "return_last_state": True, **options}
    return selective_scan_fn(**tensors, **options, backend=backend)


def gradients(tensors, backend, seed=0):
    """Of a random weighting of both results, by argument name."""
    tensors = {name: t.detach().requires_grad_() for name, t in tensors.items()}
    results = run(tensors, backend)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(r.shape, generator=generator, dtype=r.dtype) for r in results]
    loss = sum((w * r).sum() for w, r in zip(weights, results, strict=True))
    return dict(zip(tensors, torch.autograd.grad(loss, list(tensors.values())), strict=True))


def assert_equal(actual, expected, tolerance=1e-4):
    """Equal to `tolerance` of the greatest value expected, or of 1 where that is less."""
    assert actual.shape == expected.shape
    scale = max(1.0, expected.abs().max().item())
    assert (actual - expected).abs().max().item() <= tolerance * scale


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=30, deadline=None, database=None)
@example(batch=1, channels=3, length=8000, states=64, optional=True, by_step=True, seed=0)
@example(batch=1, channels=1, length=1, states=1, optional=False, by_step=False, seed=0)
@example(batch=2, channels=33, length=64, states=16, optional=True, by_step=False, seed=0)
@example(batch=2, channels=48, length=129, states=7, optional=True, by_step=True, seed=0)
@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 20),
    length=st.integers(1, 300) | st.integers(1, 8000),
    states=st.integers(1, 64),
    optional=st.booleans(),
    by_step=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_equals_the_reference(backend, batch, channels, length, states, optional, by_step, seed):
    tensors = arguments(
        batch, channels, length, states, optional=optional, by_step=by_step, seed=seed
    )
    for actual, expected in zip(run(tensors, backend), run(tensors, "reference"), strict=True):
        assert_equal(actual, expected)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("absent", [[], ["D"], ["z"], ["delta_bias"], ["D", "z", "delta_bias"]])
@pytest.mark.parametrize("softplus", [True, False])
def test_equals_the_reference_whatever_is_left_out(backend, absent, softplus):
    tensors = {k: t for k, t in arguments(2, 20, 70, 5).items() if k not in absent}
    if not softplus:
        tensors["delta"] = tensors["delta"].abs()
        tensors = {k: t.abs() if k == "delta_bias" else t for k, t in tensors.items()}
    for actual, expected in zip(
        run(tensors, backend, delta_softplus=softplus),
        run(tensors, "reference", delta_softplus=softplus),
        strict=True,
    ):
        assert_equal(actual, expected)


@pytest.mark.parametrize("optional", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradcheck(backend, optional):
    tensors = arguments(2, 3, 70, 2, dtype=torch.float64, optional=optional)
    names = list(tensors)

    def function(*values):
        return run(dict(zip(names, values, strict=True)), backend)

    inputs = [t.detach().requires_grad_() for t in tensors.values()]
    assert torch.autograd.gradcheck(function, inputs, fast_mode=True)


@pytest.mark.parametrize("by_step", [True, False])
@pytest.mark.parametrize("shape", [(3, 40, 180, 16), (1, 17, 300, 3), (2, 5, 1, 1)])
def test_gradients_of_the_kernel_equal_those_of_the_torch_form(shape, by_step):
    tensors = arguments(*shape, by_step=by_step)
    expected = gradients(tensors, "torch")
    for name, gradient in gradients(tensors, "cpp").items():
        assert_equal(gradient, expected[name])
    for name, gradient in gradients(tensors, "reference").items():
        assert_equal(gradient, expected[name])


def test_only_the_last_state_is_used_in_the_loss():
    tensors = arguments(1, 4, 10, 3)
    tensors["u"].requires_grad_()
    expected, actual = (
        torch.autograd.grad(run(tensors, b)[1].sum(), tensors["u"])[0]
        for b in ("reference", "cpp")
    )
    assert_equal(actual, expected)


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_share_the_channels(threads):
    tensors = arguments(2, 70, 300, 16)
    outputs, before = run(tensors, "cpp"), gradients(tensors, "cpp")
    count = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for actual, expected in zip(run(tensors, "cpp"), outputs, strict=True):
            assert torch.equal(actual, expected)
        after = gradients(tensors, "cpp")
    finally:
        torch.set_num_threads(count)
    for name, gradient in after.items():
        assert_equal(gradient, before[name], 1e-6)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_nan_in_gives_nan_out(backend, name):
    tensors = arguments(1, 20, 40, 4)
    tensors[name][(0,) * tensors[name].ndim] = float("nan")
    out, last = run(tensors, backend)
    assert torch.isnan(out[0, 0, 0])
    expected_out, expected_last = run(tensors, "reference")
    assert torch.equal(torch.isnan(out), torch.isnan(expected_out))
    assert torch.equal(torch.isnan(last), torch.isnan(expected_last))


@pytest.mark.parametrize("backend", BACKENDS)
def test_extremes_are_those_of_the_reference(backend):
    tensors = arguments(1, 4, 6, 2, optional=False)
    tensors["delta"][0, 0] = 1e4  # the state is forgotten at once
    tensors["delta"][0, 1] = -1e4  # softplus gives 0: the state stays
    tensors["A"][2] = 300.0  # an unstable system, whose state is soon infinite
    out, _ = run(tensors, backend)
    expected, _ = run(tensors, "reference")
    finite = torch.isfinite(expected)
    assert not finite.all()
    assert torch.equal(torch.isfinite(out), finite)
    assert_equal(out[finite], expected[finite])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", ARGUMENTS)
def test_any_strides(backend, name):
    tensors = arguments(2, 20, 70, 4)
    expected_results, expected = run(tensors, "reference"), gradients(tensors, "reference")
    wide = tensors[name].new_zeros([2 * size for size in tensors[name].shape])
    view = wide[(slice(1, None, 2),) * wide.ndim]
    view.copy_(tensors[name])
    assert not view.is_contiguous()
    strided = {**tensors, name: view}
    for actual, reference in zip(run(strided, backend), expected_results, strict=True):
        assert_equal(actual, reference)
    for key, gradient in gradients(strided, backend).items():
        assert_equal(gradient, expected[key])


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_inputs(backend):
    tensors = arguments(1, 20, 70, 4)
    tensors = {k: t.expand(3, -1, -1) if t.ndim == 3 else t for k, t in tensors.items()}
    tensors["delta"] = tensors["delta"][:, :1].expand(3, 20, 70)  # one step size for all channels
    assert_equal(run(tensors, backend)[0], run(tensors, "reference")[0])


def test_output_lies_in_memory_as_u_does():
    for by_step in (True, False):
        tensors = arguments(2, 20, 70, 4, by_step=by_step)
        out, _ = run(tensors, "cpp")
        assert out.stride() == tensors["u"].stride()


@pytest.mark.parametrize("backend", BACKENDS)
def test_grouped_B_and_C_and_lower_precision(backend):
    tensors = arguments(2, 20, 70, 4)
    expected = run(tensors, "reference")[0]
    tensors["B"], tensors["C"] = tensors["B"].unsqueeze(1), tensors["C"].unsqueeze(1)
    assert_equal(run(tensors, backend)[0], expected)
    out, last = run({k: t.bfloat16() for k, t in tensors.items()}, backend)
    assert (out.dtype, last.dtype) == (torch.bfloat16, torch.float32)
    assert_equal(out.float(), expected, 2e-2)


WRONG = {
    "u": lambda t: t[0],
    "delta": lambda t: t[:, :, 1:],
    "A": lambda t: t[:-1],
    "B": lambda t: t[:, 1:],
    "C": lambda t: t.transpose(1, 2),
    "D": lambda t: t.unsqueeze(0),
    "z": lambda t: t[:1],
    "delta_bias": lambda t: t[1:],
}


@pytest.mark.parametrize("name", ARGUMENTS)
def test_what_does_not_fit_is_named(name):
    tensors = arguments(2, 20, 70, 4)
    with pytest.raises(ValueError, match=rf"^{name} must "):
        selective_scan_fn(**{**tensors, name: WRONG[name](tensors[name])})
    with pytest.raises(ValueError, match=rf"^{name} must be a real floating-point tensor"):
        selective_scan_fn(**{**tensors, name: tensors[name].to(torch.complex64)})
    if name != "u":
        with pytest.raises(ValueError, match=rf"^{name} is on meta and u on cpu"):
            selective_scan_fn(**{**tensors, name: tensors[name].to("meta")})


def test_no_steps_and_unknown_backends_are_refused():
    tensors = arguments(1, 4, 3, 2)
    with pytest.raises(ValueError, match="backend must be one of reference, torch, cpp, cuda"):
        run(tensors, "fast")
    with pytest.raises(ValueError, match="length > 0"):
        run({k: t[..., :0] if t.ndim == 3 else t for k, t in tensors.items()}, "cpp")


def test_operators_are_well_formed():
    tensors = [t.detach().requires_grad_() for t in arguments(2, 5, 70, 3).values()]
    torch.library.opcheck(scan._scan, (*tensors, True, True))
    bare = [t.detach().requires_grad_() for t in arguments(2, 5, 70, 3, optional=False).values()]
    torch.library.opcheck(scan._scan, (*bare, None, None, None, True, True))
    with torch.no_grad():
        out, last, saved = scan._scan(*tensors, True, True)
    grads = (torch.ones_like(out), torch.ones_like(last), saved)
    detached = [t.detach() for t in tensors]
    torch.library.opcheck(scan._scan_backward, (*grads, *detached, True))


def test_compile_sees_it_whole():
    tensors = arguments(1, 5, 70, 3)
    tensors["u"].requires_grad_()
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)
    expected = torch.autograd.grad(run(tensors)[0].square().sum(), tensors["u"])
    actual = torch.autograd.grad(compiled(tensors)[0].square().sum(), tensors["u"])
    assert_equal(actual[0], expected[0])


def test_memory_stays_far_below_the_states_of_all_steps():
    tensors = arguments(1, 1536, 3072, 16)  # the OFM's shape: all states would be 288 MiB
    with torch.no_grad():
        assert memory_growth(lambda: run(tensors, "cpp")) < 64 * 2**20


def test_the_kernel_is_the_default_on_a_cpu():
    tensors = arguments(1, 5, 70, 3)
    assert torch.equal(run(tensors)[0], run(tensors, "cpp")[0])
    assert not torch.equal(run(tensors)[0], run(tensors, "torch")[0])  # they round differently
    assert scan.available_backends("cpu") == ["reference", "torch", "cpp"]


def test_without_the_library_the_torch_form_runs_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setattr(scan.ainet_ros, "__path__", [str(tmp_path)])
    with pytest.warns(RuntimeWarning, match="compiled selective scan .* is not there"):
        library = scan._load_library()
    monkeypatch.setattr(scan, "_library", library)
    tensors = arguments(1, 5, 70, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        out, _ = run(tensors)
    assert torch.equal(out, run(tensors, "torch")[0])
    with pytest.raises(ValueError, match="'cpp' is not there"):
        run(tensors, "cpp")


def test_a_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(scan, "_ABI_VERSION", scan._ABI_VERSION + 1)
    with pytest.raises(ImportError, match="build the package again"):
        scan._load_library()


@pytest.mark.skipif(
    "cuda" not in scan.available_backends("cuda"),
    reason="no CUDA GPU, or no mamba_ssm with its CUDA extension",
)
def test_mamba_ssm_equals_the_reference():
    tensors = {k: t.cuda() for k, t in arguments(2, 64, 300, 16).items()}
    for actual, expected in zip(run(tensors, "cuda"), run(tensors, "reference"), strict=True):
        assert_equal(actual, expected)


@pytest.fixture(scope="module")
def triton_scan():
    """In Triton's interpreter where there is no GPU."""
    if not torch.cuda.is_available():
        os.environ["TRITON_INTERPRET"] = "1"  # read when triton is imported, and later
    pytest.importorskip("triton", reason="needs the package triton")
    yield importlib.import_module("ainet_ros.network.scan_triton").scan
    os.environ.pop("TRITON_INTERPRET", None)


@pytest.mark.parametrize("absent", [[], ["D"], ["z"], ["delta_bias"], ["D", "z", "delta_bias"]])
@pytest.mark.parametrize("shape", [(2, 5, 70, 3), (1, 1, 1, 1), (1, 4, 130, 16)], ids=str)
def test_triton_kernel_equals_the_reference(triton_scan, shape, absent):
    for softplus, by_step in ((True, True), (False, False)):
        tensors = arguments(*shape, by_step=by_step)
        if not softplus:
            tensors["delta"] = tensors["delta"].abs()
            tensors["delta_bias"] = tensors["delta_bias"].abs()
        tensors = {k: None if k in absent else t for k, t in tensors.items()}
        device = "cuda" if torch.cuda.is_available() else "cpu"
        moved = {k: None if t is None else t.to(device) for k, t in tensors.items()}
        expected = run(tensors, "reference", delta_softplus=softplus)
        results = triton_scan(scan.Scan(**moved, delta_softplus=softplus))
        for actual, wanted in zip(results, expected, strict=True):
            assert_equal(actual.cpu(), wanted)
