// SPDX-License-Identifier: Apache-2.0
// SPDX-FileCopyrightText: the authors of ainet_ros
//
// Selective scan (Mamba, arXiv 2312.00752, section 3) for the CPU, forward and backward:
//
//     h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t        h: (channels, states)
//     y_t = C_t . h_t + D u_t,   out_t = y_t silu(z_t)
//
// Channels do not depend on each other: they are the lanes of the vectors here, and what threads
// share out. Time goes in chunks; only one chunk of one vector of channels ever holds its
// (steps, states, channels). The forward pass may save the state before each chunk, from which the
// backward pass computes the states of that chunk again.
//
// The vectors are GCC's and Clang's vector types, so that the same lines become AVX-512, AVX2,
// SSE2 or NEON; each form is compiled, and the best that the machine has is chosen when it runs.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>
#include <vector>

#define INLINE static inline __attribute__((always_inline))
#define EXPORT extern "C" __attribute__((visibility("default")))

// A (batch, channels or states, steps) array; strides in elements; data null where absent.
struct Series {
  void* data;
  int64_t batch, channel, step;
};

// Mirrored by `_Problem` in ainet_ros/network/scan.py: a change here is a new ABI_VERSION.
struct Problem {
  int64_t batch, channels, steps, states, chunk, threads;
  int64_t softplus;                   // whether softplus follows delta + bias
  Series u, delta, z, B, C;           // z may be absent
  const void *A, *D, *bias;           // (channels, states); (channels) or null, both
  Series out;                         // forward only
  void* last;                         // (batch, channels, states), forward only
  void* saved;                        // (batch, chunks, states, channels); forward: may be null
  Series grad_out;                    // backward only, as all below
  const void* grad_last;              // as last; may be null
  Series grad_u, grad_delta, grad_z;
  void *grad_A, *grad_D, *grad_bias;  // as A, D, bias
  void *grad_B, *grad_C;              // (threads, batch, steps, states), to be summed over threads
};

namespace {

constexpr int64_t ABI_VERSION = 1;
constexpr double LOG2_E = 1.4426950408889634, LN_2 = 0.6931471805599453;

template <class T, int N> struct Simd {
  typedef T Vec __attribute__((vector_size(N * sizeof(T))));
  typedef int32_t Bits __attribute__((vector_size(N * sizeof(int32_t))));
};
template <class T, int N> using Vec = typename Simd<T, N>::Vec;
template <int N> using Bits = typename Simd<float, N>::Bits;

// ---- Elementary functions, without branches ----------------------------------------------------

// 2^x. Relative error 1e-7: a polynomial of degree 5, minimax on [-1/2, 1/2] and exact at 0. It is
// 0 below 2^-127, inf from 2^128 and NaN where x is not finite.
template <class T, int N> INLINE Vec<T, N> exp2_(Vec<T, N> x) {
  if constexpr (std::is_same_v<T, float>) {
    constexpr float ROUND = 12582912.0f + 127.0f;  // 1.5 * 2^23 rounds; 127: the exponent's bias
    constexpr int32_t LEAST = 0x4B400000, MOST = LEAST + 255;  // the bits of 1.5 * 2^23 + 0 to 255
    const Vec<T, N> shifted = x + ROUND, r = x - (shifted - ROUND);
    Bits<N> exponent = (Bits<N>)shifted;
    exponent = exponent > LEAST ? exponent : LEAST + Bits<N>{};
    exponent = exponent > MOST ? MOST + Bits<N>{} : exponent;
    Vec<T, N> p = 0.001326472725f * r + 0.009671512786f;
    p = p * r + 0.05550733744f;
    p = p * r + 0.2402224208f;
    p = p * r + 0.6931469776f;
    p = p * r + 1.0f;
    return p * (Vec<T, N>)(exponent << 23);
  } else {
    for (int lane = 0; lane < N; ++lane) x[lane] = std::exp2(x[lane]);
    return x;
  }
}

template <class T, int N> INLINE Vec<T, N> exp_(Vec<T, N> x) { return exp2_<T, N>(x * T(LOG2_E)); }

// log(1 + x) for x in [0, 1], as 2 atanh(s), s = x / (2 + x). Relative error 1e-7.
template <class T, int N> INLINE Vec<T, N> log1p_(Vec<T, N> x) {
  if constexpr (std::is_same_v<T, float>) {
    const Vec<T, N> s = x / (2.0f + x), v = s * s;
    Vec<T, N> p = 0.2801199206f * v + 0.2800180429f;
    p = p * v + 0.4002152729f;
    p = p * v + 0.6666641628f;
    p = p * v + 2.0f;
    return p * s;
  } else {
    for (int lane = 0; lane < N; ++lane) x[lane] = std::log1p(x[lane]);
    return x;
  }
}

template <class T, int N> INLINE Vec<T, N> softplus(Vec<T, N> x) {
  const Vec<T, N> zero{}, magnitude = x < zero ? -x : x;
  return (x > zero ? x : zero) + log1p_<T, N>(exp_<T, N>(-magnitude));
}

template <class T, int N> INLINE Vec<T, N> sigmoid(Vec<T, N> x) {
  return T(1) / (T(1) + exp_<T, N>(-x));
}

// ---- Memory ------------------------------------------------------------------------------------

template <class T, int N> INLINE Vec<T, N> get(const T* from) {
  Vec<T, N> v;
  std::memcpy(&v, from, sizeof v);
  return v;
}

template <class T, int N> INLINE void put(T* to, Vec<T, N> v) { std::memcpy(to, &v, sizeof v); }

template <class T, int N> INLINE void add(T* to, Vec<T, N> v) { put<T, N>(to, get<T, N>(to) + v); }

// The first `width` lanes, zeros in the others.
template <class T, int N> INLINE Vec<T, N> gather(const T* from, int64_t width) {
  if (width == N) return get<T, N>(from);
  Vec<T, N> v{};
  for (int64_t lane = 0; lane < width; ++lane) v[lane] = from[lane];
  return v;
}

template <class T> INLINE T* at(const Series& s, int64_t b, int64_t channel, int64_t step) {
  return static_cast<T*>(s.data) + b * s.batch + channel * s.channel + step * s.step;
}

// A tile: (steps, N channels) of a series, the channels past `width` zero.
template <class T, int N>
INLINE void load(T* tile, const Series& s, int64_t b, int64_t channel, int64_t step, int64_t steps,
                 int64_t width) {
  const T* from = at<const T>(s, b, channel, step);
  if (s.channel == 1 && width == N) {
    for (int64_t t = 0; t < steps; ++t) {
      __builtin_prefetch(from + t * s.step + N);  // the next tile: rows lie far apart
      put<T, N>(tile + t * N, get<T, N>(from + t * s.step));
    }
    return;
  }
  if (width < N) std::fill(tile, tile + steps * N, T(0));
  for (int64_t lane = 0; lane < width; ++lane) {
    const T* row = from + lane * s.channel;
    for (int64_t t = 0; t < steps; t += 64 / sizeof(T))  // the next tile, a cache line at a time
      __builtin_prefetch(row + (steps + t) * s.step);
    for (int64_t t = 0; t < steps; ++t) tile[t * N + lane] = row[t * s.step];
  }
}

template <class T, int N>
INLINE void store(const T* tile, const Series& s, int64_t b, int64_t channel, int64_t step,
                  int64_t steps, int64_t width) {
  T* to = at<T>(s, b, channel, step);
  if (s.channel == 1 && width == N) {
    for (int64_t t = 0; t < steps; ++t) {
      __builtin_prefetch(to + t * s.step + N, 1);  // the next tile, to be written
      put<T, N>(to + t * s.step, get<T, N>(tile + t * N));
    }
    return;
  }
  for (int64_t lane = 0; lane < width; ++lane)
    for (int64_t t = 0; t < steps; ++t) to[lane * s.channel + t * s.step] = tile[t * N + lane];
}

// (steps, states) of B or C.
template <class T>
INLINE void load_states(T* to, const Series& s, int64_t b, int64_t step, int64_t steps,
                        int64_t states) {
  const T* from = at<const T>(s, b, 0, step);
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t n = 0; n < states; ++n) to[t * states + n] = from[t * s.step + n * s.channel];
}

// ---- What both directions share ----------------------------------------------------------------

// The channels of one thread in vectors, and time in chunks.
template <class T, int N> struct Layout {
  const Problem& p;
  int64_t first, end, vectors, chunks;
  std::vector<T> A;  // (vectors, states, N), times log2(e): exp(delta A) is exp2(delta A log2(e))

  Layout(const Problem& problem, int64_t first, int64_t end)
      : p(problem), first(first), end(end), vectors((end - first + N - 1) / N),
        chunks((p.steps + p.chunk - 1) / p.chunk), A(vectors * p.states * N) {
    for (int64_t channel = first; channel < end; ++channel)
      for (int64_t n = 0; n < p.states; ++n)
        A[index(channel, n)] =
            static_cast<const T*>(p.A)[channel * p.states + n] * T(LOG2_E);
  }
  // The states before chunk c: (states, channels), from `channel` on.
  T* saved(int64_t b, int64_t c, int64_t channel) const {
    return static_cast<T*>(p.saved) + (b * chunks + c) * p.states * p.channels + channel;
  }
  // Of a channel's state in a (vectors, states, N) array.
  int64_t index(int64_t channel, int64_t n) const {
    const int64_t local = channel - first;
    return (local / N * p.states + n) * N + local % N;
  }
};

// `delta` as it enters the scan, from delta as given.
template <class T, int N>
INLINE void discretize(T* delta, Vec<T, N> bias, bool with_softplus, int64_t steps) {
  for (int64_t t = 0; t < steps; ++t) {
    const Vec<T, N> x = get<T, N>(delta + t * N) + bias;
    put<T, N>(delta + t * N, with_softplus ? softplus<T, N>(x) : x);
  }
}

// N values of a vector over channels; zeros where it is null.
template <class T, int N>
INLINE Vec<T, N> of_channels(const void* vector, int64_t channel, int64_t width) {
  return vector ? gather<T, N>(static_cast<const T*>(vector) + channel, width) : Vec<T, N>{};
}

// (states, N) from and to (states, channels).
template <class T, int N>
INLINE void gather_states(T* to, const T* from, int64_t states, int64_t channels, int64_t width) {
  for (int64_t n = 0; n < states; ++n)
    put<T, N>(to + n * N, gather<T, N>(from + n * channels, width));
}

template <class T, int N>
INLINE void scatter_states(T* to, const T* from, int64_t states, int64_t channels, int64_t width) {
  for (int64_t n = 0; n < states; ++n)
    std::copy(from + n * N, from + n * N + width, to + n * channels);
}

// The sums over lanes of `count` vectors.
template <class T, int N> INLINE void sum_lanes(T* sums, const T* lanes, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    T sum[N];
    std::memcpy(sum, lanes + i * N, sizeof sum);
    for (int half = N / 2; half > 0; half /= 2)
      for (int lane = 0; lane < half; ++lane) sum[lane] += sum[lane + half];
    sums[i] = sum[0];
  }
}

// ---- Forward -----------------------------------------------------------------------------------

template <class T, int N>
INLINE void forward(const Problem& p, int64_t first, int64_t end, int64_t /* thread */) {
  const Layout<T, N> layout(p, first, end);
  const int64_t S = p.states, tile = p.chunk * N;
  std::vector<T> states(layout.A.size()), B_(p.steps * S), C_(p.steps * S), tiles(4 * tile);
  T *u = tiles.data(), *delta = u + tile, *z = delta + tile, *out = z + tile;
  // As u lies in memory: all channels of a chunk first, or all chunks of a vector of channels.
  const bool by_chunk = p.u.channel == 1;

  for (int64_t b = 0; b < p.batch; ++b) {
    std::fill(states.begin(), states.end(), T(0));
    load_states(B_.data(), p.B, b, 0, p.steps, S);
    load_states(C_.data(), p.C, b, 0, p.steps, S);
    for (int64_t i = 0; i < layout.vectors * layout.chunks; ++i) {
      const int64_t k = by_chunk ? i % layout.vectors : i / layout.chunks;
      const int64_t c = by_chunk ? i / layout.vectors : i % layout.chunks;
      const int64_t begin = c * p.chunk, steps = std::min(p.chunk, p.steps - begin);
      const T *B = B_.data() + begin * S, *C = C_.data() + begin * S;
      const int64_t channel = first + k * N, width = std::min<int64_t>(N, end - channel);
      const T* A = layout.A.data() + k * S * N;
      T* h = states.data() + k * S * N;
      if (p.saved)
        scatter_states<T, N>(layout.saved(b, c, channel), h, S, p.channels, width);
      load<T, N>(u, p.u, b, channel, begin, steps, width);
      load<T, N>(delta, p.delta, b, channel, begin, steps, width);
      discretize<T, N>(delta, of_channels<T, N>(p.bias, channel, width), p.softplus, steps);
      const Vec<T, N> skip = of_channels<T, N>(p.D, channel, width);

      for (int64_t t = 0; t < steps; ++t) {
        const Vec<T, N> delta_t = get<T, N>(delta + t * N), u_t = get<T, N>(u + t * N);
        const Vec<T, N> input = delta_t * u_t;
        Vec<T, N> y = skip * u_t;
        for (int64_t n = 0; n < S; ++n) {
          const Vec<T, N> decay = exp2_<T, N>(delta_t * get<T, N>(A + n * N));
          const Vec<T, N> state = decay * get<T, N>(h + n * N) + input * B[t * S + n];
          put<T, N>(h + n * N, state);
          y += state * C[t * S + n];
        }
        put<T, N>(out + t * N, y);
      }
      if (p.z.data) {
        load<T, N>(z, p.z, b, channel, begin, steps, width);
        for (int64_t t = 0; t < steps; ++t) {
          const Vec<T, N> z_t = get<T, N>(z + t * N);
          put<T, N>(out + t * N, get<T, N>(out + t * N) * z_t * sigmoid<T, N>(z_t));
        }
      }
      store<T, N>(out, p.out, b, channel, begin, steps, width);
    }
    for (int64_t channel = first; channel < end; ++channel)
      for (int64_t n = 0; n < S; ++n)
        static_cast<T*>(p.last)[(b * p.channels + channel) * S + n] =
            states[layout.index(channel, n)];
  }
}

// ---- Backward ----------------------------------------------------------------------------------
//
// With g_t the gradient of h_t, dy_t that of y_t, decay_t = exp(delta_t A) and
// e_t = g_t decay_t h_{t-1}; a dot sums over states:
//
//     g_t = dy_t C_t + decay_{t+1} g_{t+1}
//     dA  = sum over t of e_t delta_t            dB_t = sum over channels of g_t delta_t u_t
//     dD  = sum over t of dy_t u_t               dC_t = sum over channels of dy_t h_t
//     d delta_t = e_t . A + (g_t . B_t) u_t      du_t = (g_t . B_t) delta_t + D dy_t

template <class T, int N>
INLINE void backward(const Problem& p, int64_t first, int64_t end, int64_t thread) {
  const Layout<T, N> layout(p, first, end);
  const int64_t S = p.states, tile = p.chunk * N;
  std::vector<T> carry(layout.A.size());  // decay_{t+1} g_{t+1}
  std::vector<T> grad_A(layout.A.size());
  std::vector<T> grad_D(layout.vectors * N), grad_bias(layout.vectors * N);
  std::vector<T> B_(p.chunk * S), C_(p.chunk * S), tiles(5 * tile);
  std::vector<T> h_((p.chunk + 1) * S * N), decay_(tile * S);  // of one chunk of one vector
  std::vector<T> sum_B(tile * S), sum_C(tile * S);             // dB and dC of a chunk, by lane
  T *B = B_.data(), *C = C_.data();
  T *u = tiles.data(), *raw = u + tile, *delta = raw + tile, *dy = delta + tile, *z = dy + tile;

  for (int64_t b = 0; b < p.batch; ++b) {
    std::fill(carry.begin(), carry.end(), T(0));
    if (p.grad_last)
      for (int64_t channel = first; channel < end; ++channel)
        for (int64_t n = 0; n < S; ++n)
          carry[layout.index(channel, n)] =
              static_cast<const T*>(p.grad_last)[(b * p.channels + channel) * S + n];
    for (int64_t c = layout.chunks - 1; c >= 0; --c) {
      const int64_t begin = c * p.chunk, steps = std::min(p.chunk, p.steps - begin);
      load_states(B, p.B, b, begin, steps, S);
      load_states(C, p.C, b, begin, steps, S);
      std::fill(sum_B.begin(), sum_B.end(), T(0));
      std::fill(sum_C.begin(), sum_C.end(), T(0));
      for (int64_t k = 0; k < layout.vectors; ++k) {
        const int64_t channel = first + k * N, width = std::min<int64_t>(N, end - channel);
        const T* A = layout.A.data() + k * S * N;
        const Vec<T, N> bias = of_channels<T, N>(p.bias, channel, width);
        const Vec<T, N> skip = of_channels<T, N>(p.D, channel, width);
        load<T, N>(u, p.u, b, channel, begin, steps, width);
        load<T, N>(raw, p.delta, b, channel, begin, steps, width);
        std::copy(raw, raw + steps * N, delta);
        discretize<T, N>(delta, bias, p.softplus, steps);
        load<T, N>(dy, p.grad_out, b, channel, begin, steps, width);
        if (p.z.data) {
          load<T, N>(z, p.z, b, channel, begin, steps, width);
          for (int64_t t = 0; t < steps; ++t) {
            const Vec<T, N> z_t = get<T, N>(z + t * N), gate = sigmoid<T, N>(z_t);
            const Vec<T, N> grad_out = get<T, N>(dy + t * N);
            put<T, N>(dy + t * N, grad_out * z_t * gate);
            // The gradient of z, but for the factor y.
            put<T, N>(z + t * N, grad_out * gate * (T(1) + z_t * (T(1) - gate)));
          }
        }

        gather_states<T, N>(h_.data(), layout.saved(b, c, channel), S, p.channels, width);
        for (int64_t t = 0; t < steps; ++t) {
          const T* before = h_.data() + t * S * N;
          T *after = h_.data() + (t + 1) * S * N, *kept = decay_.data() + t * S * N;
          T* dC = sum_C.data() + t * S * N;
          const Vec<T, N> delta_t = get<T, N>(delta + t * N), u_t = get<T, N>(u + t * N);
          const Vec<T, N> input = delta_t * u_t, dy_t = get<T, N>(dy + t * N);
          Vec<T, N> y = skip * u_t;
          for (int64_t n = 0; n < S; ++n) {
            const Vec<T, N> decay = exp2_<T, N>(delta_t * get<T, N>(A + n * N));
            const Vec<T, N> state = decay * get<T, N>(before + n * N) + input * B[t * S + n];
            put<T, N>(kept + n * N, decay);
            put<T, N>(after + n * N, state);
            add<T, N>(dC + n * N, dy_t * state);
            y += state * C[t * S + n];
          }
          if (p.z.data) put<T, N>(z + t * N, get<T, N>(z + t * N) * y);
        }
        if (p.z.data) store<T, N>(z, p.grad_z, b, channel, begin, steps, width);

        T *g_next = carry.data() + k * S * N, *dA = grad_A.data() + k * S * N;
        Vec<T, N> dD{}, dbias{};
        for (int64_t t = steps - 1; t >= 0; --t) {
          const T *before = h_.data() + t * S * N, *kept = decay_.data() + t * S * N;
          T* dB = sum_B.data() + t * S * N;
          const Vec<T, N> delta_t = get<T, N>(delta + t * N), u_t = get<T, N>(u + t * N);
          const Vec<T, N> input = delta_t * u_t, dy_t = get<T, N>(dy + t * N);
          Vec<T, N> dinput{}, ddelta{};
          for (int64_t n = 0; n < S; ++n) {
            const Vec<T, N> g = get<T, N>(g_next + n * N) + dy_t * C[t * S + n];
            const Vec<T, N> through = g * get<T, N>(kept + n * N);
            const Vec<T, N> e = through * get<T, N>(before + n * N);
            put<T, N>(g_next + n * N, through);
            add<T, N>(dA + n * N, e * delta_t);
            add<T, N>(dB + n * N, g * input);
            dinput += g * B[t * S + n];
            ddelta += e * get<T, N>(A + n * N);
          }
          ddelta = ddelta * T(LN_2) + dinput * u_t;
          if (p.softplus) ddelta *= sigmoid<T, N>(get<T, N>(raw + t * N) + bias);
          dD += dy_t * u_t;
          dbias += ddelta;
          put<T, N>(u + t * N, dinput * delta_t + skip * dy_t);
          put<T, N>(delta + t * N, ddelta);
        }
        add<T, N>(grad_D.data() + k * N, dD);
        add<T, N>(grad_bias.data() + k * N, dbias);
        store<T, N>(u, p.grad_u, b, channel, begin, steps, width);
        store<T, N>(delta, p.grad_delta, b, channel, begin, steps, width);
      }
      const int64_t row = ((thread * p.batch + b) * p.steps + begin) * S;
      sum_lanes<T, N>(static_cast<T*>(p.grad_B) + row, sum_B.data(), steps * S);
      sum_lanes<T, N>(static_cast<T*>(p.grad_C) + row, sum_C.data(), steps * S);
    }
  }
  for (int64_t channel = first; channel < end; ++channel) {
    for (int64_t n = 0; n < S; ++n)
      static_cast<T*>(p.grad_A)[channel * S + n] = grad_A[layout.index(channel, n)];
    static_cast<T*>(p.grad_D)[channel] = grad_D[channel - first];
    static_cast<T*>(p.grad_bias)[channel] = grad_bias[channel - first];
  }
}

// ---- One compiled form for each instruction set ------------------------------------------------

struct Kernel {
  void (*run)(const Problem&, int64_t first, int64_t end, int64_t thread);
  int lanes;
};

enum Direction { FORWARD, BACKWARD };

#define KERNELS(NAME, BYTES, TARGET)                                                         \
  template <class T, Direction D>                                                            \
  TARGET void run_##NAME(const Problem& p, int64_t first, int64_t end, int64_t thread) {     \
    if constexpr (D == FORWARD)                                                              \
      forward<T, BYTES / sizeof(T)>(p, first, end, thread);                                  \
    else                                                                                     \
      backward<T, BYTES / sizeof(T)>(p, first, end, thread);                                 \
  }                                                                                          \
  template <class T, Direction D> constexpr Kernel NAME{run_##NAME<T, D>, BYTES / sizeof(T)};

KERNELS(simd128, 16, )  // SSE2, and NEON on aarch64
#ifdef __x86_64__
KERNELS(simd256, 32, __attribute__((target("avx2,fma"))))
KERNELS(simd512, 64, __attribute__((target("avx2,fma,avx512f,avx512bw,avx512dq,avx512vl"))))
#endif

template <class T, Direction D> Kernel kernel() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl"))
    return simd512<T, D>;
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return simd256<T, D>;
#endif
  return simd128<T, D>;
}

// Whole vectors of channels to each thread. Those of OpenMP are PyTorch's, who wait for work between
// its operations. 1 where memory ran out.
template <class T, Direction D> int run(const Problem& p) noexcept {
  static const Kernel chosen = kernel<T, D>();
  const int64_t vectors = (p.channels + chosen.lanes - 1) / chosen.lanes;
  std::atomic<int> failed{0};
#pragma omp parallel for num_threads(p.threads) schedule(static, 1)
  for (int64_t i = 0; i < p.threads; ++i) {
    const int64_t first = vectors * i / p.threads * chosen.lanes;
    const int64_t end = std::min(p.channels, vectors * (i + 1) / p.threads * chosen.lanes);
    try {
      chosen.run(p, first, end, i);
    } catch (const std::bad_alloc&) {
      failed = 1;
    }
  }
  return failed;
}

}  // namespace

EXPORT int64_t ainet_scan_abi() { return ABI_VERSION; }
EXPORT int ainet_scan_forward_float(const Problem* p) { return run<float, FORWARD>(*p); }
EXPORT int ainet_scan_forward_double(const Problem* p) { return run<double, FORWARD>(*p); }
EXPORT int ainet_scan_backward_float(const Problem* p) { return run<float, BACKWARD>(*p); }
EXPORT int ainet_scan_backward_double(const Problem* p) { return run<double, BACKWARD>(*p); }
