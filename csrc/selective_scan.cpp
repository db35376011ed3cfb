// SPDX-License-Identifier: Apache-2.0
//
// Selective scan (Mamba, arXiv 2312.00752, section 3) for the CPU, forward and backward:
//
//     h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t        h: (channels, states)
//     y_t = C_t . h_t + D u_t,   out_t = y_t silu(z_t)
//
// Channels are independent, so they are both the SIMD lanes (blocks of `LANES` channels) and the
// unit that threads share. Time goes in chunks of `chunk` steps; nothing larger than one chunk of
// one block holds (steps, states, channels). The forward pass may save the state at the start of
// each chunk, from which the backward pass recomputes the states of that chunk.
//
// Every loop over `lane` has a constant length and no branch: the compiler makes it vectors. The
// body is compiled once for each instruction set below and chosen when it runs.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <cmath>
#include <exception>
#include <thread>
#include <vector>

#define INLINE static inline __attribute__((always_inline))
#define EXPORT extern "C" __attribute__((visibility("default")))

// A (batch, channels or states, steps) array; strides in elements; data null where absent.
struct Series {
  void* data;
  int64_t batch, channel, step;
};

// Mirrored by `_Problem` in ainet_ros/network/scan.py; a change here is a new ABI version.
struct Problem {
  int64_t batch, channels, steps, states, chunk, threads;
  int64_t softplus;
  Series u, delta, z, B, C;
  void *A, *D, *bias;       // (channels, states), (channels), (channels); D and bias may be null
  Series out;               // forward only
  void *last;               // (batch, channels, states), forward only
  void *saved;              // (batch, chunks, states, channels), state before each chunk; may be null in forward
  Series grad_out;          // backward only, and all below
  void *grad_last;          // (batch, channels, states); may be null
  Series grad_u, grad_delta, grad_z;
  void *grad_A, *grad_D, *grad_bias;  // as A, D, bias
  void *grad_B, *grad_C;    // (threads, batch, steps, states): one part a thread, to be summed
};

namespace {

constexpr int64_t ABI_VERSION = 1;

template <class T> constexpr int LANES = 64 / sizeof(T);

// ---- Elementary functions without branches ------------------------------------------------------

// 2^x. Relative error 1e-7 (polynomial of degree 5, minimax on [-1/2, 1/2], exact at 0); 0 below
// 2^-126, inf from 2^128, NaN for NaN.
INLINE float exp2_(float x) {
  constexpr float SHIFT = 12582912.0f + 127.0f;  // 1.5 * 2^23: rounds; 127: the exponent's bias
  x = x < -127.0f ? -127.0f : x;
  x = x > 128.0f ? 128.0f : x;
  const float shifted = x + SHIFT;
  const float r = x - (shifted - SHIFT);
  uint32_t bits;
  std::memcpy(&bits, &shifted, sizeof bits);
  bits <<= 23;
  float scale;
  std::memcpy(&scale, &bits, sizeof scale);
  float p = 0.001326472725f;
  p = p * r + 0.009671512786f;
  p = p * r + 0.05550733744f;
  p = p * r + 0.2402224208f;
  p = p * r + 0.6931469776f;
  p = p * r + 1.0f;
  return p * scale;
}
INLINE double exp2_(double x) { return std::exp2(x); }

template <class T> INLINE T exp_(T x) { return exp2_(x * T(1.4426950408889634)); }

// log(1 + x) for x in [0, 1], as 2 atanh(x / (2 + x)). Relative error 1e-7.
INLINE float log1p_(float x) {
  const float s = x / (2.0f + x), v = s * s;
  float p = 0.2801199206f;
  p = p * v + 0.2800180429f;
  p = p * v + 0.4002152729f;
  p = p * v + 0.6666641628f;
  p = p * v + 2.0f;
  return p * s;
}
INLINE double log1p_(double x) { return std::log1p(x); }

template <class T> INLINE T softplus(T x) {
  const T magnitude = x < T(0) ? -x : x;
  return (x > T(0) ? x : T(0)) + log1p_(exp_(-magnitude));
}

template <class T> INLINE T sigmoid(T x) { return T(1) / (T(1) + exp_(-x)); }

// ---- Tiles: `steps` x `LANES` of a series, in contiguous memory ---------------------------------

template <class T> INLINE const T* at(const Series& s, int64_t b, int64_t channel, int64_t step) {
  return static_cast<const T*>(s.data) + b * s.batch + channel * s.channel + step * s.step;
}

template <class T>
INLINE void load(T* tile, const Series& s, int64_t b, int64_t channel, int64_t step, int64_t steps,
                 int64_t width) {
  constexpr int W = LANES<T>;
  const T* from = at<T>(s, b, channel, step);
  for (int64_t t = 0; t < steps; ++t) {
    const T* row = from + t * s.step;
    if (width == W && s.channel == 1) {
      for (int lane = 0; lane < W; ++lane) tile[t * W + lane] = row[lane];
    } else {
      for (int lane = 0; lane < W; ++lane)
        tile[t * W + lane] = lane < width ? row[lane * s.channel] : T(0);
    }
  }
}

template <class T>
INLINE void store(const T* tile, const Series& s, int64_t b, int64_t channel, int64_t step,
                  int64_t steps, int64_t width) {
  constexpr int W = LANES<T>;
  T* to = const_cast<T*>(at<T>(s, b, channel, step));
  for (int64_t t = 0; t < steps; ++t) {
    T* row = to + t * s.step;
    if (width == W && s.channel == 1) {
      for (int lane = 0; lane < W; ++lane) row[lane] = tile[t * W + lane];
    } else {
      for (int64_t lane = 0; lane < width; ++lane) row[lane * s.channel] = tile[t * W + lane];
    }
  }
}

// (steps, states) of B or C.
template <class T>
INLINE void load_states(T* tile, const Series& s, int64_t b, int64_t step, int64_t steps, int64_t N) {
  const T* from = at<T>(s, b, 0, step);
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t n = 0; n < N; ++n) tile[t * N + n] = from[t * s.step + n * s.channel];
}

// `width` values of a vector over channels, the other lanes `fill`.
template <class T>
INLINE void load_lanes(T* lanes, const void* from, int64_t channel, int64_t width, T fill) {
  for (int lane = 0; lane < LANES<T>; ++lane)
    lanes[lane] = from && lane < width ? static_cast<const T*>(from)[channel + lane] : fill;
}

// A of one block of channels as (states, LANES), times log2(e): exp(delta A) = exp2(delta A log2(e)).
template <class T> INLINE void load_A(T* block, const Problem& p, int64_t channel, int64_t width) {
  constexpr int W = LANES<T>;
  for (int64_t n = 0; n < p.states; ++n)
    for (int64_t lane = 0; lane < W; ++lane)
      block[n * W + lane] =
          lane < width ? static_cast<const T*>(p.A)[(channel + lane) * p.states + n] *
                             T(1.4426950408889634)
                       : T(0);
}

// delta as it enters the scan.
template <class T>
INLINE void discretize(T* delta, const T* bias, bool with_softplus, int64_t steps) {
  constexpr int W = LANES<T>;
  for (int64_t t = 0; t < steps; ++t)
    for (int lane = 0; lane < W; ++lane) delta[t * W + lane] += bias[lane];
  if (with_softplus)
    for (int64_t i = 0; i < steps * W; ++i) delta[i] = softplus(delta[i]);
}

// ---- Forward ------------------------------------------------------------------------------------

// Channels [first, end) of every sequence.
template <class T> INLINE void forward(const Problem& p, int64_t first, int64_t end) {
  constexpr int W = LANES<T>;
  const int64_t N = p.states, blocks = (end - first + W - 1) / W;
  const int64_t chunks = (p.steps + p.chunk - 1) / p.chunk;
  std::vector<T> A(blocks * N * W), states(blocks * N * W), B(p.chunk * N), C(p.chunk * N);
  std::vector<T> u_(p.chunk * W), delta_(p.chunk * W), z_(p.chunk * W), y_(p.chunk * W);
  for (int64_t k = 0; k < blocks; ++k)
    load_A(&A[k * N * W], p, first + k * W, std::min<int64_t>(W, end - first - k * W));

  for (int64_t b = 0; b < p.batch; ++b) {
    std::fill(states.begin(), states.end(), T(0));
    for (int64_t c = 0; c < chunks; ++c) {
      const int64_t begin = c * p.chunk, steps = std::min(p.chunk, p.steps - begin);
      load_states(B.data(), p.B, b, begin, steps, N);
      load_states(C.data(), p.C, b, begin, steps, N);
      for (int64_t k = 0; k < blocks; ++k) {
        const int64_t channel = first + k * W, width = std::min<int64_t>(W, end - channel);
        T* h = &states[k * N * W];
        const T* a = &A[k * N * W];
        if (p.saved) {
          T* to = static_cast<T*>(p.saved) + ((b * chunks + c) * N) * p.channels + channel;
          for (int64_t n = 0; n < N; ++n)
            for (int64_t lane = 0; lane < width; ++lane) to[n * p.channels + lane] = h[n * W + lane];
        }
        T bias[W], skip[W];
        load_lanes(bias, p.bias, channel, width, T(0));
        load_lanes(skip, p.D, channel, width, T(0));
        T *u = u_.data(), *delta = delta_.data(), *y = y_.data(), *z = z_.data();
        load(u, p.u, b, channel, begin, steps, width);
        load(delta, p.delta, b, channel, begin, steps, width);
        discretize(delta, bias, p.softplus, steps);

        for (int64_t t = 0; t < steps; ++t) {
          T du[W], sum[W], dt[W];
          for (int lane = 0; lane < W; ++lane) {
            dt[lane] = delta[t * W + lane];
            du[lane] = dt[lane] * u[t * W + lane];
            sum[lane] = T(0);
          }
          for (int64_t n = 0; n < N; ++n) {
            const T Bn = B[t * N + n], Cn = C[t * N + n];
            for (int lane = 0; lane < W; ++lane) {
              const T decay = exp2_(dt[lane] * a[n * W + lane]);
              const T state = decay * h[n * W + lane] + du[lane] * Bn;
              h[n * W + lane] = state;
              sum[lane] += state * Cn;
            }
          }
          for (int lane = 0; lane < W; ++lane) y[t * W + lane] = sum[lane] + skip[lane] * u[t * W + lane];
        }
        if (p.z.data) {
          load(z, p.z, b, channel, begin, steps, width);
          for (int64_t i = 0; i < steps * W; ++i) y[i] *= z[i] * sigmoid(z[i]);
        }
        store(y, p.out, b, channel, begin, steps, width);
      }
    }
    for (int64_t k = 0; k < blocks; ++k) {
      const int64_t channel = first + k * W, width = std::min<int64_t>(W, end - channel);
      for (int64_t lane = 0; lane < width; ++lane)
        for (int64_t n = 0; n < N; ++n)
          static_cast<T*>(p.last)[(b * p.channels + channel + lane) * N + n] =
              states[(k * N + n) * W + lane];
    }
  }
}

// ---- Backward -----------------------------------------------------------------------------------
//
// With g_t the gradient of h_t and e_t = g_t h_{t-1} exp(delta_t A):
//     g_t = dy_t C_t + exp(delta_{t+1} A) g_{t+1}        dB_t = sum over channels of g_t delta_t u_t
//     dC_t = sum over channels of dy_t h_t               dA = sum over t of e_t delta_t
//     d delta_t = sum over n of (e_t A + g_t B_t u_t)    du_t = delta_t sum over n of g_t B_t + D dy_t

// Channels [first, end) of every sequence; `part` is the thread's own part of grad_B and grad_C.
template <class T> INLINE void backward(const Problem& p, int64_t first, int64_t end, int64_t part) {
  constexpr int W = LANES<T>;
  const int64_t N = p.states, blocks = (end - first + W - 1) / W, tile = p.chunk * W;
  const int64_t chunks = (p.steps + p.chunk - 1) / p.chunk;
  std::vector<T> A(blocks * N * W), grad_A(blocks * N * W), carry(blocks * N * W);
  std::vector<T> grad_D(blocks * W), grad_bias(blocks * W), B(p.chunk * N), C(p.chunk * N);
  std::vector<T> h_(p.chunk * N * W + N * W), decay_(p.chunk * N * W);   // states h_{t-1}, h_t; exp(delta A)
  std::vector<T> sum_B(p.chunk * N * W), sum_C(p.chunk * N * W);        // dB, dC, still by lane
  std::vector<T> u_(tile), raw_(tile), delta_(tile), z_(tile), y_(tile), dy_(tile), du_(tile);
  for (int64_t k = 0; k < blocks; ++k)
    load_A(&A[k * N * W], p, first + k * W, std::min<int64_t>(W, end - first - k * W));

  for (int64_t b = 0; b < p.batch; ++b) {
    for (int64_t k = 0; k < blocks; ++k)
      for (int64_t n = 0; n < N; ++n)
        for (int64_t lane = 0; lane < W; ++lane) {
          const int64_t channel = first + k * W + lane;
          carry[(k * N + n) * W + lane] =
              p.grad_last && channel < end
                  ? static_cast<const T*>(p.grad_last)[(b * p.channels + channel) * N + n]
                  : T(0);
        }
    for (int64_t c = chunks - 1; c >= 0; --c) {
      const int64_t begin = c * p.chunk, steps = std::min(p.chunk, p.steps - begin);
      load_states(B.data(), p.B, b, begin, steps, N);
      load_states(C.data(), p.C, b, begin, steps, N);
      std::fill(sum_B.begin(), sum_B.end(), T(0));
      std::fill(sum_C.begin(), sum_C.end(), T(0));
      for (int64_t k = 0; k < blocks; ++k) {
        const int64_t channel = first + k * W, width = std::min<int64_t>(W, end - channel);
        const T* a = &A[k * N * W];
        T *u = u_.data(), *delta = delta_.data(), *raw = raw_.data(), *y = y_.data();
        T *dy = dy_.data(), *z = z_.data(), *du = du_.data(), *h = h_.data(), *decay = decay_.data();
        T bias[W], skip[W];
        load_lanes(bias, p.bias, channel, width, T(0));
        load_lanes(skip, p.D, channel, width, T(0));
        load(u, p.u, b, channel, begin, steps, width);
        load(raw, p.delta, b, channel, begin, steps, width);
        load(dy, p.grad_out, b, channel, begin, steps, width);
        for (int64_t i = 0; i < steps * W; ++i) delta[i] = raw[i];
        discretize(delta, bias, p.softplus, steps);

        const T* from = static_cast<const T*>(p.saved) + ((b * chunks + c) * N) * p.channels + channel;
        for (int64_t n = 0; n < N; ++n)
          for (int64_t lane = 0; lane < W; ++lane)
            h[n * W + lane] = lane < width ? from[n * p.channels + lane] : T(0);
        for (int64_t t = 0; t < steps; ++t) {
          const T *before = h + t * N * W, *dt = delta + t * W;
          T *after = h + (t + 1) * N * W, *kept = decay + t * N * W;
          T step_u[W], sum[W];
          for (int lane = 0; lane < W; ++lane) {
            step_u[lane] = dt[lane] * u[t * W + lane];
            sum[lane] = T(0);
          }
          for (int64_t n = 0; n < N; ++n) {
            const T Bn = B[t * N + n], Cn = C[t * N + n];
            for (int lane = 0; lane < W; ++lane) {
              const T d = exp2_(dt[lane] * a[n * W + lane]);
              const T state = d * before[n * W + lane] + step_u[lane] * Bn;
              kept[n * W + lane] = d;
              after[n * W + lane] = state;
              sum[lane] += state * Cn;
            }
          }
          for (int lane = 0; lane < W; ++lane) y[t * W + lane] = sum[lane] + skip[lane] * u[t * W + lane];
        }
        if (p.z.data) {
          load(z, p.z, b, channel, begin, steps, width);
          for (int64_t i = 0; i < steps * W; ++i) {
            const T gate = sigmoid(z[i]);
            const T dz = dy[i] * y[i] * gate * (T(1) + z[i] * (T(1) - gate));
            dy[i] *= z[i] * gate;
            z[i] = dz;
          }
          store(z, p.grad_z, b, channel, begin, steps, width);
        }

        T *g_next = &carry[k * N * W], *dA = &grad_A[k * N * W];
        T *dD = &grad_D[k * W], *dbias = &grad_bias[k * W];
        for (int64_t t = steps - 1; t >= 0; --t) {
          const T *before = h + t * N * W, *after = h + (t + 1) * N * W, *kept = decay + t * N * W;
          T *dB = &sum_B[t * N * W], *dC = &sum_C[t * N * W];
          T dt[W], dyt[W], step_u[W], by_state[W], by_decay[W];
          for (int lane = 0; lane < W; ++lane) {
            dt[lane] = delta[t * W + lane];
            dyt[lane] = dy[t * W + lane];
            step_u[lane] = dt[lane] * u[t * W + lane];
            by_state[lane] = by_decay[lane] = T(0);
          }
          for (int64_t n = 0; n < N; ++n) {
            const T Bn = B[t * N + n], Cn = C[t * N + n];
            for (int lane = 0; lane < W; ++lane) {
              const int64_t i = n * W + lane;
              const T g = g_next[i] + dyt[lane] * Cn;
              const T through = g * kept[i];
              const T e = through * before[i];
              g_next[i] = through;
              dC[i] += dyt[lane] * after[i];
              dB[i] += g * step_u[lane];
              dA[i] += e * dt[lane];
              by_state[lane] += g * Bn;
              by_decay[lane] += e * a[i];
            }
          }
          for (int lane = 0; lane < W; ++lane) {
            const int64_t i = t * W + lane;
            const T ut = u[i];
            du[i] = by_state[lane] * dt[lane] + skip[lane] * dyt[lane];
            delta[i] = by_decay[lane] * T(0.6931471805599453) + by_state[lane] * ut;
            dD[lane] += dyt[lane] * ut;
          }
        }
        if (p.softplus)
          for (int64_t t = 0; t < steps; ++t)
            for (int lane = 0; lane < W; ++lane)
              delta[t * W + lane] *= sigmoid(raw[t * W + lane] + bias[lane]);
        for (int64_t t = 0; t < steps; ++t)
          for (int lane = 0; lane < W; ++lane) dbias[lane] += delta[t * W + lane];
        store(du, p.grad_u, b, channel, begin, steps, width);
        store(delta, p.grad_delta, b, channel, begin, steps, width);
      }
      const int64_t row = ((part * p.batch + b) * p.steps + begin) * N;
      for (int64_t i = 0; i < steps * N; ++i) {
        T dB = T(0), dC = T(0);
        for (int lane = 0; lane < W; ++lane) {
          dB += sum_B[i * W + lane];
          dC += sum_C[i * W + lane];
        }
        static_cast<T*>(p.grad_B)[row + i] = dB;
        static_cast<T*>(p.grad_C)[row + i] = dC;
      }
    }
  }
  for (int64_t channel = first; channel < end; ++channel) {
    const int64_t k = (channel - first) / W, lane = (channel - first) % W;
    for (int64_t n = 0; n < N; ++n)
      static_cast<T*>(p.grad_A)[channel * N + n] = grad_A[(k * N + n) * W + lane];
    if (p.grad_D) static_cast<T*>(p.grad_D)[channel] = grad_D[k * W + lane];
    if (p.grad_bias) static_cast<T*>(p.grad_bias)[channel] = grad_bias[k * W + lane];
  }
}

// ---- One compiled form for each instruction set -------------------------------------------------

using Body = void (*)(const Problem&, int64_t first, int64_t end, int64_t part);

struct Bodies {
  Body forward_float, forward_double, backward_float, backward_double;
};

#define BODIES(NAME, TARGET)                                                                       \
  TARGET void NAME##_ff(const Problem& p, int64_t a, int64_t b, int64_t) { forward<float>(p, a, b); }   \
  TARGET void NAME##_fd(const Problem& p, int64_t a, int64_t b, int64_t) { forward<double>(p, a, b); }  \
  TARGET void NAME##_bf(const Problem& p, int64_t a, int64_t b, int64_t i) { backward<float>(p, a, b, i); }   \
  TARGET void NAME##_bd(const Problem& p, int64_t a, int64_t b, int64_t i) { backward<double>(p, a, b, i); }  \
  constexpr Bodies NAME{NAME##_ff, NAME##_fd, NAME##_bf, NAME##_bd};

BODIES(baseline, )  // on aarch64 this is NEON
#if defined(__x86_64__)
BODIES(avx2, __attribute__((target("avx2,fma"))))
#if defined(__clang__)
BODIES(avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))))
#else
BODIES(avx512, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))))
#endif
#endif

const Bodies& bodies() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return avx512;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return avx2;
#endif
  return baseline;
}

// Channels in `threads` runs of whole blocks, the first on the calling thread. 0 where all went well.
int run(const Problem& p, Body body, int64_t lanes) {
  const int64_t blocks = (p.channels + lanes - 1) / lanes;
  std::vector<std::exception_ptr> errors(p.threads);
  const auto work = [&](int64_t i) {
    const int64_t first = blocks * i / p.threads * lanes;
    const int64_t end = std::min(p.channels, blocks * (i + 1) / p.threads * lanes);
    try {
      body(p, first, end, i);
    } catch (...) {
      errors[i] = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  for (int64_t i = 1; i < p.threads; ++i) others.emplace_back(work, i);
  work(0);
  for (auto& thread : others) thread.join();
  return std::any_of(errors.begin(), errors.end(), [](const auto& e) { return bool(e); });
}

}  // namespace

EXPORT int64_t ainet_scan_abi() { return ABI_VERSION; }
EXPORT int ainet_scan_forward_float(const Problem* p) { return run(*p, bodies().forward_float, LANES<float>); }
EXPORT int ainet_scan_forward_double(const Problem* p) { return run(*p, bodies().forward_double, LANES<double>); }
EXPORT int ainet_scan_backward_float(const Problem* p) { return run(*p, bodies().backward_float, LANES<float>); }
EXPORT int ainet_scan_backward_double(const Problem* p) { return run(*p, bodies().backward_double, LANES<double>); }
