// Row statistics of logits, their gradient, and the loss made of them, on a CPU.
//
// For a row x of V logits with largest entry m = x_k:
//
//     tail    = sum over c != k of exp(x_c - m)
//     lse     = m + log1p(tail)
//     nll     = w_t ((m - x_t) + log1p(tail))                      both terms >= 0: nothing cancels
//     p_c     = exp(x_c - m) / (1 + tail),   1 - p_k = tail / (1 + tail)
//
// exp(x_c) is reduced by powers of two directly, x = X ln 2 + r, and the row is kept in units of
// 2^M near exp(m): x_c - m is never rounded. Where |m| is so large that X would lose digits, m is
// taken off first; what still counts then lies within a factor of two of m, and the difference is
// exact. The largest entry is left out of every sum and its exponential is computed in double.
//
// This file is compiled once for each instruction set (XENT_TARGET names it) into one library. No
// Python, no torch, no C++ library, no state but the thread pool. `Call` is what kernels/cpu.py
// packs; every size and stride is in elements.
//
// Not to be compiled with -ffast-math: reassociation breaks the rounding in `exponentials`.

#include <math.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512DQ__) && defined(__AVX512VL__)
#define XENT_V4 1
#define XENT_BYTES 64
#elif defined(__AVX2__)
#define XENT_V3 1
#define XENT_BYTES 32
#else
#define XENT_BYTES 16
#endif

#define XENT_JOIN_(a, b) a##_##b
#define XENT_JOIN(a, b) XENT_JOIN_(a, b)
#define XENT_NAME(base) XENT_JOIN(base, XENT_TARGET)
#define XENT_EXPORT extern "C" __attribute__((visibility("default")))
#define XENT_INLINE inline __attribute__((always_inline))

// The signature of torch_parallel_for: the threads are the caller's.
typedef int32_t (*ParallelFor)(int64_t, int64_t, int64_t, void (*)(int64_t, int64_t, void*), void*);

namespace {

// ---- What is asked ------------------------------------------------------------------------------

enum Dtype : int64_t { FLOAT16, BFLOAT16, FLOAT32, FLOAT64 };
enum Mode : int64_t { STATISTICS, GRADIENT, LOSS };
enum TargetKind : int64_t { NO_TARGET, INDICES, PROBABILITIES };
enum Denominator : int64_t { NOTHING, GIVEN, ROW_WEIGHT };
enum Flag : int64_t { SMOOTH = 1, ENTROPY = 2, ACCURATE = 4, CHECK = 8, MEASURES = 16 };

const int64_t IGNORED = -1, INVALID = -2;  // what a target index out of use is read as

struct Call {
    int64_t mode, flags;
    const void* logits;
    int64_t dtype, n, d, v, stride_n, stride_d, stride_v;
    int64_t target_kind;
    const void* target;  // int64 (n, d), or probabilities (n, d, v) of target_dtype
    int64_t target_dtype, target_n, target_d, target_v, ignore_index;
    const double* weight;  // (v,) or null
    double logit_scale, softcap;  // 0: none
    // (n, d) statistics, each null where not asked; k and tail are read where mode is GRADIENT
    double *lse, *nll, *smooth, *entropy, *tail;
    int64_t* k;
    // (n, d) derivatives by lse, nll, smooth and entropy, null for zero
    const double *by_lse, *by_nll, *by_smooth, *by_entropy;
    void* gradient;  // of the dtype of the logits, or null
    int64_t gradient_n, gradient_d, gradient_v;
    // loss = of_nll nll + of_smooth smooth + of_lse2 (row weight) lse^2
    double of_nll, of_smooth, of_lse2;
    int64_t denominator;
    double divisor, upstream;
    void* losses;  // (n, d) of loss_dtype, or null
    void* loss;    // the sum over rows, divided; or null
    int64_t loss_dtype;
    ParallelFor parallel;  // null: this thread alone
    // (n, d) measures of saved predictions where flags have MEASURES, each null where not asked:
    // likeliest probability, Brier score, the first and second derivative of nll by log(logit_scale)
    // (of the second, without the first), and how many logits are above the target's
    double *confidence, *brier, *slope, *curve;
    int64_t* above;
};

// ---- Vectors ------------------------------------------------------------------------------------

struct bf16 {
    uint16_t bits;
};
struct fp16 {
    uint16_t bits;
};

template <class W>
struct Vector;
template <>
struct Vector<float> {
    typedef float type __attribute__((vector_size(XENT_BYTES)));
    typedef float loose __attribute__((vector_size(XENT_BYTES), aligned(4), may_alias));
    typedef int32_t ints __attribute__((vector_size(XENT_BYTES)));
    typedef int32_t integer;
};
template <>
struct Vector<double> {
    typedef double type __attribute__((vector_size(XENT_BYTES)));
    typedef double loose __attribute__((vector_size(XENT_BYTES), aligned(8), may_alias));
    typedef int64_t ints __attribute__((vector_size(XENT_BYTES)));
    typedef int64_t integer;
};

typedef Vector<float>::type vf;
typedef Vector<double>::type vd;
typedef float hf __attribute__((vector_size(XENT_BYTES / 2)));
typedef float hf_loose __attribute__((vector_size(XENT_BYTES / 2), aligned(4), may_alias));
typedef uint16_t half_lanes __attribute__((vector_size(XENT_BYTES / 2), aligned(2), may_alias));
typedef uint16_t full_lanes __attribute__((vector_size(XENT_BYTES), aligned(2), may_alias));
typedef uint32_t vu __attribute__((vector_size(XENT_BYTES)));

template <class W>
constexpr int lanes = XENT_BYTES / int(sizeof(W));

template <class W>
XENT_INLINE typename Vector<W>::type load(const W* p) {
    return *reinterpret_cast<const typename Vector<W>::loose*>(p);
}
template <class W>
XENT_INLINE void store(W* p, typename Vector<W>::type v) {
    *reinterpret_cast<typename Vector<W>::loose*>(p) = v;
}
template <class W>
XENT_INLINE typename Vector<W>::type all(W x) {
    return typename Vector<W>::type{} + x;
}

// The larger entry; where x is NaN, y.
XENT_INLINE vf larger(vf x, vf y) {
#if XENT_V4
    return (vf)_mm512_max_ps((__m512)x, (__m512)y);
#elif XENT_V3
    return (vf)_mm256_max_ps((__m256)x, (__m256)y);
#elif defined(__SSE2__)
    return (vf)_mm_max_ps((__m128)x, (__m128)y);
#else
    return x > y ? x : y;
#endif
}
XENT_INLINE vd larger(vd x, vd y) {
#if XENT_V4
    return (vd)_mm512_max_pd((__m512d)x, (__m512d)y);
#elif XENT_V3
    return (vd)_mm256_max_pd((__m256d)x, (__m256d)y);
#elif defined(__SSE2__)
    return (vd)_mm_max_pd((__m128d)x, (__m128d)y);
#else
    return x > y ? x : y;
#endif
}

template <class W>
XENT_INLINE W largest_lane(typename Vector<W>::type v) {
#if XENT_V4
    if constexpr (sizeof(W) == 4) return _mm512_reduce_max_ps((__m512)v);
    if constexpr (sizeof(W) == 8) return _mm512_reduce_max_pd((__m512d)v);
#endif
    W best = v[0];
    for (int i = 1; i < lanes<W>; i++) best = v[i] > best ? v[i] : best;
    return best;
}

// Of lanes that are not negative or -1, which is more than any other.
template <class W>
XENT_INLINE int64_t least_lane(typename Vector<W>::ints v) {
#if XENT_V4
    if constexpr (sizeof(W) == 4) return _mm512_reduce_min_epu32((__m512i)v);
    if constexpr (sizeof(W) == 8) return int64_t(_mm512_reduce_min_epu64((__m512i)v));
#endif
    uint64_t least = ~uint64_t(0);
    for (int i = 0; i < lanes<W>; i++) least = uint64_t(v[i]) < least ? uint64_t(v[i]) : least;
    return int64_t(least);
}

// A float vector as two of doubles.
XENT_INLINE void widen(vf v, vd& low, vd& high) {
#if XENT_V4
    low = (vd)_mm512_cvtps_pd(_mm512_castps512_ps256((__m512)v));
    high = (vd)_mm512_cvtps_pd(_mm512_extractf32x8_ps((__m512)v, 1));
#elif XENT_V3
    low = (vd)_mm256_cvtps_pd(_mm256_castps256_ps128((__m256)v));
    high = (vd)_mm256_cvtps_pd(_mm256_extractf128_ps((__m256)v, 1));
#else
    for (int i = 0; i < lanes<double>; i++) low[i] = v[i], high[i] = v[i + lanes<double>];
#endif
}
XENT_INLINE vf narrow(vd low, vd high) {
#if XENT_V4
    return (vf)_mm512_insertf32x8(_mm512_castps256_ps512(_mm512_cvtpd_ps((__m512d)low)),
                                  _mm512_cvtpd_ps((__m512d)high), 1);
#elif XENT_V3
    return (vf)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm256_cvtpd_ps((__m256d)low)),
                                    _mm256_cvtpd_ps((__m256d)high), 1);
#else
    vf out;
    for (int i = 0; i < lanes<double>; i++)
        out[i] = float(low[i]), out[i + lanes<double>] = float(high[i]);
    return out;
#endif
}

XENT_INLINE double sum_of(vd v) {
#if XENT_V4
    return _mm512_reduce_add_pd((__m512d)v);  // by halves too
#endif
    double sums[lanes<double>];
    memcpy(sums, &v, sizeof v);
    for (int half = lanes<double> / 2; half; half /= 2)
        for (int i = 0; i < half; i++) sums[i] += sums[i + half];
    return sums[0];
}

// A sum of many terms: of floats in double, of doubles with what each addition loses (TwoSum).
template <class W>
struct Sum;
template <>
struct Sum<float> {
    vd low{}, high{};
    XENT_INLINE void add(vf term) {
        vd a, b;
        widen(term, a, b);
        low += a;
        high += b;
    }
    XENT_INLINE double total() const {
        return sum_of(low + high);
    }
};
template <>
struct Sum<double> {
    vd sum{}, lost{};
    XENT_INLINE void add(vd term) {
        vd next = sum + term, shadow = next - sum;
        lost += (sum - (next - shadow)) + (term - shadow);
        sum = next;
    }
    XENT_INLINE double total() const {
        double high = 0, low = 0;
        for (int i = 0; i < lanes<double>; i++) {
            double next = high + sum[i], shadow = next - high;
            low += (high - (next - shadow)) + (sum[i] - shadow) + lost[i];
            high = next;
        }
        return low == low ? high + low : high;  // an infinite sum lost nothing
    }
};

// ---- Formats: how entries lie in memory, what they are computed in, and how exactly -------------

XENT_INLINE float from_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, 4);
    return x;
}
XENT_INLINE uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits;
}

XENT_INLINE double value(double x) { return x; }
XENT_INLINE double value(float x) { return x; }
XENT_INLINE double value(bf16 x) { return from_bits(uint32_t(x.bits) << 16); }
XENT_INLINE float widened(fp16 x) {
    uint32_t sign = uint32_t(x.bits & 0x8000) << 16, rest = x.bits & 0x7fff;
    if (rest >= 0x7c00) return from_bits(sign | 0x7f800000 | (rest << 13));
    float magnitude = float(int32_t(rest)) * 5.9604644775390625e-8f;  // subnormal: units of 2^-24
    if (rest >= 0x400) magnitude = from_bits((rest << 13) + (112u << 23));
    return from_bits(sign | to_bits(magnitude));
}
XENT_INLINE double value(fp16 x) { return widened(x); }

XENT_INLINE void assign(double& out, double x) { out = x; }
XENT_INLINE void assign(float& out, double x) { out = float(x); }
XENT_INLINE void assign(bf16& out, double x) {
    uint32_t bits = to_bits(float(x));
    if (x != x) bits = 0x7fc00000;
    out.bits = uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
XENT_INLINE void assign(fp16& out, double x) {
    float y = float(x);
    uint32_t bits = to_bits(y), sign = (bits >> 16) & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) {
        out.bits = 0x7e00;
    } else if (rest >= 0x477ff000) {  // at least half a unit above the largest number
        out.bits = uint16_t(sign | 0x7c00);
    } else if (rest < 0x38800000) {  // subnormal: adding 1/2 rounds to units of 2^-24
        out.bits = uint16_t(sign | (to_bits(from_bits(rest) + 0.5f) - 0x3f000000));
    } else {
        out.bits = uint16_t(sign | ((rest - (112u << 23) + 0xfff + ((rest >> 13) & 1)) >> 13));
    }
}

template <class T>
constexpr T lowest();  // -inf
template <>
constexpr float lowest<float>() { return -INFINITY; }
template <>
constexpr double lowest<double>() { return -INFINITY; }
template <>
constexpr bf16 lowest<bf16>() { return {0xff80}; }
template <>
constexpr fp16 lowest<fp16>() { return {0xfc00}; }

// Storage, Work: types; DEGREE: of the polynomial; NEAR: |m| up to which x needs no centring.
struct F32 {
    typedef float Storage, Work;
    static constexpr int DEGREE = 6;
    static constexpr double NEAR = 256;
};
struct F32Accurate {
    typedef float Storage;
    typedef double Work;
    static constexpr int DEGREE = 11;
    static constexpr double NEAR = 1500;
};
struct F64 {
    typedef double Storage, Work;
    static constexpr int DEGREE = 12;
    static constexpr double NEAR = 1500;
};
template <int DEGREE_>  // 4 for results in bfloat16, 5 in float16, 6 in float32
struct BF16 {
    typedef bf16 Storage;
    typedef float Work;
    static constexpr int DEGREE = DEGREE_;
    static constexpr double NEAR = 256;
};
template <int DEGREE_>
struct FP16 {
    typedef fp16 Storage;
    typedef float Work;
    static constexpr int DEGREE = DEGREE_;
    static constexpr double NEAR = 32;
};
// A tile of classes by rows in the type computed in.
template <class W>
struct Tile {
    typedef W Storage, Work;
    static constexpr int DEGREE = sizeof(W) == 4 ? 6 : 12;
    static constexpr double NEAR = sizeof(W) == 4 ? 256 : 1500;
};

// Two vectors of 2 x lanes entries, in an order of the format's own; `put` undoes `get`.
XENT_INLINE void get(const float* p, vf& a, vf& b) { a = load(p), b = load(p + lanes<float>); }
XENT_INLINE void put(float* p, vf a, vf b) { store(p, a), store(p + lanes<float>, b); }
XENT_INLINE void get(const double* p, vd& a, vd& b) { a = load(p), b = load(p + lanes<double>); }
XENT_INLINE void put(double* p, vd a, vd b) { store(p, a), store(p + lanes<double>, b); }
XENT_INLINE void get(const float* p, vd& a, vd& b) { widen(load(p), a, b); }
XENT_INLINE void put(float* p, vd a, vd b) { store(p, narrow(a, b)); }
XENT_INLINE void get(const bf16* p, vf& a, vf& b) {  // the even entries, and the odd
    vu bits = (vu)*reinterpret_cast<const full_lanes*>(p);
    a = (vf)(bits << 16);
    b = (vf)(bits & 0xffff0000u);
}
XENT_INLINE void put(bf16* p, vf a, vf b) {  // NaN keeps its upper bits: those of bf16 logits
    vu even = (vu)a, odd = (vu)b;
    even += 0x7fffu + ((even >> 16) & 1u);
    odd += 0x7fffu + ((odd >> 16) & 1u);
    *reinterpret_cast<full_lanes*>(p) = (full_lanes)((odd & 0xffff0000u) | (even >> 16));
}
XENT_INLINE vf get_half(const fp16* p) {
#if XENT_V4
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
#elif XENT_V3
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
#else
    vf out;
    for (int i = 0; i < lanes<float>; i++) out[i] = widened(p[i]);
    return out;
#endif
}
XENT_INLINE void put_half(fp16* p, vf v) {
#if XENT_V4
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph((__m512)v, 0));
#elif XENT_V3
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph((__m256)v, 0));
#else
    for (int i = 0; i < lanes<float>; i++) assign(p[i], v[i]);
#endif
}
XENT_INLINE void get(const fp16* p, vf& a, vf& b) { a = get_half(p), b = get_half(p + lanes<float>); }
XENT_INLINE void put(fp16* p, vf a, vf b) { put_half(p, a), put_half(p + lanes<float>, b); }

#if XENT_V4
// Which entries of a vector's length are equal to `x`, in the order of memory, and how many these are.
XENT_INLINE uint32_t equal(const float* p, float x, int& count) {
    count = 16;
    return _mm512_cmp_ps_mask(_mm512_loadu_ps(p), _mm512_set1_ps(x), _CMP_EQ_OQ);
}
XENT_INLINE uint32_t equal(const double* p, double x, int& count) {
    count = 8;
    return _mm512_cmp_pd_mask(_mm512_loadu_pd(p), _mm512_set1_pd(x), _CMP_EQ_OQ);
}
XENT_INLINE uint32_t equal(const bf16* p, float x, int& count) {
    count = 16;
    const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
    const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
    return _mm512_cmp_ps_mask((__m512)wide, _mm512_set1_ps(x), _CMP_EQ_OQ);
}
XENT_INLINE uint32_t equal(const fp16* p, float x, int& count) {
    count = 16;
    return _mm512_cmp_ps_mask((__m512)get_half(p), _mm512_set1_ps(x), _CMP_EQ_OQ);
}

// The entries of 4 vectors whose bits are set in a mask, in the order of two `get`s, `fill` elsewhere;
// or of one vector, -inf elsewhere.
XENT_INLINE void get_some(const float* p, uint64_t in, float fill, vf (&x)[4]) {
    for (int i = 0; i < 4; i++)
        x[i] = (vf)_mm512_mask_loadu_ps(_mm512_set1_ps(fill), __mmask16(in >> 16 * i), p + 16 * i);
}
XENT_INLINE void get_some(const double* p, uint64_t in, double fill, vd (&x)[4]) {
    for (int i = 0; i < 4; i++)
        x[i] = (vd)_mm512_mask_loadu_pd(_mm512_set1_pd(fill), __mmask8(in >> 8 * i), p + 8 * i);
}
XENT_INLINE void get_some(const float* p, uint64_t in, double fill, vd (&x)[4]) {
    for (int i = 0; i < 2; i++) {
        const __m512 some =
            _mm512_mask_loadu_ps(_mm512_set1_ps(float(fill)), __mmask16(in >> 16 * i), p + 16 * i);
        widen((vf)some, x[2 * i], x[2 * i + 1]);
    }
}
XENT_INLINE void get_some(const bf16* p, uint64_t in, float fill, vf (&x)[4]) {
    const __m512i other = _mm512_set1_epi16(short(to_bits(fill) >> 16));
    for (int i = 0; i < 2; i++) {
        const vu bits = (vu)_mm512_mask_loadu_epi16(other, __mmask32(in >> 32 * i), p + 32 * i);
        x[2 * i] = (vf)(bits << 16);
        x[2 * i + 1] = (vf)(bits & 0xffff0000u);
    }
}
XENT_INLINE void get_some(const fp16* p, uint64_t in, float fill, vf (&x)[4]) {
    const __m256i other = _mm256_set1_epi16(_cvtss_sh(fill, 0));
    for (int i = 0; i < 4; i++)
        x[i] = (vf)_mm512_cvtph_ps(
            _mm256_mask_loadu_epi16(other, __mmask16(in >> 16 * i), p + 16 * i));
}
XENT_INLINE vf get_some(const float* p, __mmask16 in) {
    return (vf)_mm512_mask_loadu_ps(_mm512_set1_ps(-INFINITY), in, p);
}
XENT_INLINE vf get_some(const fp16* p, __mmask16 in) {
    const __m256i other = _mm256_set1_epi16(_cvtss_sh(-INFINITY, 0));
    return (vf)_mm512_cvtph_ps(_mm256_mask_loadu_epi16(other, in, p));
}
XENT_INLINE void put_some(float* p, uint64_t in, const vf (&x)[4]) {
    for (int i = 0; i < 4; i++)
        _mm512_mask_storeu_ps(p + 16 * i, __mmask16(in >> 16 * i), (__m512)x[i]);
}
XENT_INLINE void put_some(double* p, uint64_t in, const vd (&x)[4]) {
    for (int i = 0; i < 4; i++)
        _mm512_mask_storeu_pd(p + 8 * i, __mmask8(in >> 8 * i), (__m512d)x[i]);
}
#endif

// The first n of 4 vectors, at most; -inf after them and at `without`.
template <class S, class W, class V = typename Vector<W>::type>
XENT_INLINE void get_part(const S* p, int64_t n, int64_t without, V (&x)[4]) {
#if XENT_V4
    uint64_t in = n >= 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1;
    if (without >= 0 && without < n) in &= ~(uint64_t(1) << without);
    get_some(p, in, -W(INFINITY), x);
#else
    constexpr int GROUP = 4 * lanes<W>;
    S padded[GROUP];
    for (int i = 0; i < GROUP; i++) padded[i] = lowest<S>();
    memcpy(static_cast<void*>(padded), p, n * sizeof(S));
    if (without >= 0 && without < n) padded[without] = lowest<S>();
    get(padded, x[0], x[1]);
    get(padded + GROUP / 2, x[2], x[3]);
#endif
}

// The first entry of x[from, stop) that is equal to `top`; stop where none is.
template <class S, class W>
XENT_INLINE int64_t first_equal(const S* x, int64_t from, int64_t stop, W top) {
#if XENT_V4
    for (int count = 0; stop - from >= 16; from += count) {
        uint32_t found;
        if constexpr (sizeof(S) == 2) found = equal(x + from, float(top), count);
        else found = equal(x + from, S(top), count);
        if (found) return from + __builtin_ctz(found);
    }
#endif
    while (from < stop && W(value(x[from])) != top) from++;
    return from;
}

// ---- exp and log1p ------------------------------------------------------------------------------

template <class W>
struct Bits;  // of the type: 1.5 x 2^(mantissa), bias of the exponent, ln 2 in two parts
template <>
struct Bits<float> {
    static constexpr float MAGIC = 12582912.0f, BIAS = 127, LN2_HIGH = 0.693359375f,
                           LN2_LOW = -2.12194440e-4f;
    static constexpr int MANTISSA = 23;
};
template <>
struct Bits<double> {
    static constexpr double MAGIC = 6755399441055744.0, BIAS = 1023,
                            LN2_HIGH = 0x1.62e42feep-1, LN2_LOW = 0x1.a39ef35793c76p-33;
    static constexpr int MANTISSA = 52;
};

// (exp(r) - 1 - r) / r^2 for |r| <= ln(2) / 2. Minimax: the relative error of the exponential is
// 5.4e-6 for degree 4, 1.1e-7 for 5, 3.1e-9 for 6, 3.8e-18 for 11 and 5.5e-20 for 12. In Estrin's
// order, which has a shorter way through than Horner's; square is r^2.
template <int DEGREE>
XENT_INLINE vf exp_rest(vf r, vf square) {
    if constexpr (DEGREE == 4) {
        return square * 0.0412754712f + (r * 0.16754034944f + 0.500051770451f);
    } else if constexpr (DEGREE == 5) {
        return square * (r * 0.0083123828572f + 0.0418914249017f) +
               (r * 0.166671200307f + 0.499992228682f);
    } else {
        vf upper = square * 0.00138141708473f + (r * 0.00836892176073f + 0.0416684080257f);
        return square * upper + (r * 0.166665189391f + 0.499999933333f);
    }
}
template <int DEGREE>
XENT_INLINE vd exp_rest(vd r, vd square) {
    const vd fourth = square * square;
    if constexpr (DEGREE == 11) {
        vd low = square * (r * 8.3333333334982361277e-3 + 4.1666666666527012962e-2) +
                 (r * 0.1666666666666640508 + 0.5000000000000010932);
        vd high = square * (r * 2.7557589514301766866e-6 + 2.4801492012960311637e-5) +
                  (r * 1.98412695006962347e-4 + 1.3888888944577020699e-3);
        vd top = r * 2.4999747320822305509e-8 + 2.7630668375508095175e-7;
        return fourth * (fourth * top + high) + low;
    } else {
        vd low = square * (r * 8.3333333333166540953e-3 + 4.1666666666666077576e-2) +
                 (r * 0.1666666666666668391 + 0.50000000000000000454);
        vd high = square * (r * 2.7557233882538968323e-6 + 2.4801586920139728535e-5) +
                  (r * 1.9841269897345745844e-4 + 1.388888888912089616e-3);
        vd top = square * 2.0826352794375355415e-9 +
                 (r * 2.5112383953842990021e-8 + 2.7557584848257309438e-7);
        return fourth * (fourth * top + high) + low;
    }
}
template <int DEGREE, class V>
XENT_INLINE V exp_reduced(V r) {
    const V square = r * r;
    return exp_rest<DEGREE>(r, square) * square + r + 1;
}

// The unit that exponentials of a row are kept in: exp(center) 2^M.
template <class K>
struct Unit {
    typedef typename K::Work W;
    double center = 0, power = 0;  // power: M, a whole number

    Unit() {}
    XENT_INLINE explicit Unit(double top) {
        if (top == -INFINITY) return;
        if (fabs(top) > K::NEAR || top != top) center = top;
        else power = floor(top * M_LOG2E);  // the largest exponential is in [1, 2)
    }
    // exp(x) in this unit, in double; by a power of its own, for x may lie far below the unit
    XENT_INLINE double exp_of(double x) const {
        const double rest = x - center, own = rint(rest * M_LOG2E);
        if (own - power < -1100) return 0;  // -inf too
        if (!(fabs(own) < 1e6)) return rest - rest;  // inf, NaN
        const double r = (rest - own * Bits<double>::LN2_HIGH) - own * Bits<double>::LN2_LOW;
        return ldexp(exp(r), int(own - power));
    }
    // this unit in another
    XENT_INLINE double in(const Unit& other) const {
        if (center == other.center) return ldexp(1.0, int(power - other.power));
        double apart = center - other.center, powers = power - other.power;
        return exp(apart + powers * Bits<double>::LN2_HIGH + powers * Bits<double>::LN2_LOW);
    }
};

// The same as vectors, one unit for each lane.
template <class K>
struct Units {
    typedef typename K::Work W;
    typedef typename Vector<W>::type V;
    V center, magic, limit, negative_power;

    XENT_INLINE Units(V center_, V power)
        : center(center_),
          magic(Bits<W>::MAGIC + Bits<W>::BIAS - power),
          limit((power - Bits<W>::BIAS) * W(M_LN2)),  // below, nothing is a normal number
          negative_power(-power) {}
    XENT_INLINE explicit Units(const Unit<K>& unit)
        : Units(all<W>(W(unit.center)), all<W>(W(unit.power))) {}
};

#if XENT_V4
// exp(x) 2^-M in place for half precision, with the instructions that AVX-512 has for it: the
// fraction of the power in one, 2 to its whole part in another, right at -inf and NaN. Minimax on
// [0, 1), exactly 1 at 0; the relative error is 2.9e-6 for degree 4 and 8.2e-8 for 5.
template <int DEGREE, int COUNT>
XENT_INLINE void two_to_the(vf (&x)[COUNT], vf negative_power) {
    vf f[COUNT], p[COUNT];
    for (int i = 0; i < COUNT; i++) x[i] = x[i] * float(M_LOG2E) + negative_power;
    for (int i = 0; i < COUNT; i++) f[i] = (vf)_mm512_reduce_ps((__m512)x[i], 9);  // x - floor(x)
    if constexpr (DEGREE == 4) {
        for (int i = 0; i < COUNT; i++) p[i] = f[i] * 0.0134266856192f + 0.0522424716819f;
        for (int i = 0; i < COUNT; i++) p[i] = p[i] * f[i] + 0.241280206176f;
        for (int i = 0; i < COUNT; i++) p[i] = p[i] * f[i] + 0.693044844691f;
    } else {
        for (int i = 0; i < COUNT; i++) p[i] = f[i] * 0.00186713073845f + 0.00901702859762f;
        for (int i = 0; i < COUNT; i++) p[i] = p[i] * f[i] + 0.0557999146725f;
        for (int i = 0; i < COUNT; i++) p[i] = p[i] * f[i] + 0.240164449574f;
        for (int i = 0; i < COUNT; i++) p[i] = p[i] * f[i] + 0.693151311875f;
    }
    for (int i = 0; i < COUNT; i++) p[i] = p[i] * f[i] + 1;
    for (int i = 0; i < COUNT; i++) x[i] = (vf)_mm512_scalef_ps((__m512)p[i], (__m512)x[i]);
}
#endif

// exp(x), or exp(x + low), in units, in place; 0 where it is not a normal number. Several vectors
// step by step: one after the other, their long chains would fill the CPU's window of waiting
// operations.
template <class K, int COUNT, bool LOW = false>
XENT_INLINE void exponentiate(typename Vector<typename K::Work>::type (&x)[COUNT],
                              const Units<K>& in,
                              const typename Vector<typename K::Work>::type* low = nullptr) {
    typedef typename K::Work W;
    typedef typename Vector<W>::type V;
    typedef typename Vector<W>::ints I;
    for (int i = 0; i < COUNT; i++) x[i] = x[i] - in.center;
#if XENT_V4
    if constexpr (K::DEGREE < 6) return two_to_the<K::DEGREE>(x, in.negative_power);
#endif
    V shifted[COUNT], r[COUNT], square[COUNT], e[COUNT];
    for (int i = 0; i < COUNT; i++) shifted[i] = x[i] * W(M_LOG2E) + in.magic;
    for (int i = 0; i < COUNT; i++) e[i] = shifted[i] - in.magic;  // X
    for (int i = 0; i < COUNT; i++) r[i] = x[i] - e[i] * Bits<W>::LN2_HIGH;
    for (int i = 0; i < COUNT; i++) r[i] = r[i] - e[i] * Bits<W>::LN2_LOW;
    if constexpr (LOW)
        for (int i = 0; i < COUNT; i++) r[i] = r[i] + low[i];
    for (int i = 0; i < COUNT; i++) square[i] = r[i] * r[i];
    for (int i = 0; i < COUNT; i++) e[i] = exp_rest<K::DEGREE>(r[i], square[i]);
    for (int i = 0; i < COUNT; i++) e[i] = e[i] * square[i] + r[i];
    for (int i = 0; i < COUNT; i++) e[i] = e[i] + 1;
    for (int i = 0; i < COUNT; i++)  // the last bits of `shifted` are X - M + bias
        e[i] = e[i] * (V)((I)shifted[i] << Bits<W>::MANTISSA);
    for (int i = 0; i < COUNT; i++) x[i] = x[i] < in.limit ? V{} : e[i];
}

// log1p(s) for s >= 0, below 1 ULP; NaN for what is not finite. As in fdlibm's e_log.c, with the
// digits of s that 1 + s loses put back.
XENT_INLINE vd log1p_of(vd s) {
    typedef Vector<double>::ints I;
    vd y = 1.0 + s;
    vd shadow = y - 1.0;
    vd lost = (1.0 - (y - shadow)) + (s - shadow);
    I bits = (I)y - 0x3fe6a09e00000000;  // sqrt(1/2): the fraction comes to lie around 1
    I exponent = bits >> 52;
    vd f = (vd)((I)y - (exponent << 52)) - 1.0;
    vd n = (vd)((exponent + 0x4338000000000000)) - 6755399441055744.0;
    vd q = f / (2.0 + f), z = q * q, w = z * z;
    vd odd = w * 1.479819860511658591e-01 + 1.818357216161805012e-01;
    odd = odd * w + 2.857142874366239149e-01;
    odd = (odd * w + 6.666666666666735130e-01) * z;
    vd even = w * 1.531383769920937332e-01 + 2.222219843214978396e-01;
    even = (even * w + 3.999999999940941908e-01) * w;
    vd half = 0.5 * f * f;
    vd small = q * (half + odd + even) + (n * Bits<double>::LN2_LOW + lost / y);
    vd log = n * Bits<double>::LN2_HIGH - ((half - small) - f);
    return log + (s - s);
}
XENT_INLINE vd exp_of(vd x) {  // for x in [0, ln 2]
    const vd twice = x > M_LN2 / 2 ? vd{} + 1.0 : vd{};
    const vd r = (x - twice * Bits<double>::LN2_HIGH) - twice * Bits<double>::LN2_LOW;
    return exp_reduced<12>(r) * (1.0 + twice);
}

// ---- The formulas of a row ----------------------------------------------------------------------

XENT_INLINE double times(double measure, double x) {  // 0 times an infinite number is 0
    return measure == 0 && isinf(x) ? 0 : measure * x;
}

// What a row adds up to; miss is m - x_t, spread the weighted mean of m - x_c.
struct Row {
    double top = 0, tail = 0, log_sum = 0, miss = 0, spread = 0, entropy = 0;
    int64_t k = 0;
};

// The derivative by x_c is of_p p_c - of_class w_c - at_target [c = t].
struct Slopes {
    double of_p = 0, of_class = 0, at_target = 0;
    double nll = 0, smooth = 0, lse = 0, entropy = 0;  // what they are made of
};

struct Problem {
    const Call& call;
    double classes_weight = 0;  // sum of w
    double scale = 1;           // of the gradient of a loss

    XENT_INLINE int64_t target(int64_t row) const {
        if (call.target_kind != INDICES) return 0;
        int64_t t = static_cast<const int64_t*>(call.target)[row];
        if (t == call.ignore_index) return IGNORED;
        return t >= 0 && t < call.v ? t : INVALID;
    }
    XENT_INLINE double row_weight(int64_t t) const {
        if (call.target_kind != INDICES) return 1;
        return t < 0 ? 0 : call.weight ? call.weight[t] : 1;
    }
    XENT_INLINE bool wants_gradient() const { return call.gradient != nullptr; }

    // Write what is asked of a row, and give its loss and the slopes of its gradient.
    XENT_INLINE double finish(int64_t row, int64_t t, const Row& r, Slopes& s) const {
        double w = row_weight(t);
        double nll = call.target_kind == PROBABILITIES ? r.miss : times(w, r.log_sum + r.miss);
        double smooth = r.spread;
        double lse = isinf(r.top) ? r.top : r.top + r.log_sum;
        double entropy = r.entropy;
        if (t < 0) nll = smooth = lse = entropy = t == IGNORED ? 0 : NAN;
        if (call.mode != GRADIENT) {
            if (call.lse) call.lse[row] = lse;
            if (call.nll) call.nll[row] = nll;
            if (call.smooth) call.smooth[row] = smooth;
            if (call.entropy) call.entropy[row] = entropy;
            if (call.tail) call.tail[row] = t == IGNORED ? double(call.v - 1) : r.tail;
            if (call.k) call.k[row] = t == IGNORED ? 0 : r.k;
        }
        if (wants_gradient()) {
            if (call.mode == LOSS) {
                s.nll = call.of_nll == 0 ? 0 : call.of_nll * scale;  // an infinite scale too
                s.smooth = call.of_smooth == 0 ? 0 : call.of_smooth * scale;
                s.lse = call.of_lse2 == 0 ? 0 : 2 * call.of_lse2 * w * lse * scale;
            } else {
                s.nll = call.by_nll ? call.by_nll[row] : 0;
                s.smooth = call.by_smooth ? call.by_smooth[row] : 0;
                s.lse = call.by_lse ? call.by_lse[row] : 0;
                s.entropy = call.by_entropy ? call.by_entropy[row] : 0;
            }
            if (t == INVALID) s.nll = NAN;
            s.at_target = call.target_kind == INDICES ? s.nll * w : 0;
            if (t == INVALID) s.at_target = NAN;
            s.of_class = s.smooth / double(call.v);
            s.of_p = s.at_target + s.of_class * classes_weight + s.lse;
        }
        if (call.mode != LOSS) return 0;
        double loss = 0;
        if (call.of_nll != 0) loss += call.of_nll * nll;
        if (call.of_smooth != 0) loss += call.of_smooth * smooth;
        if (call.of_lse2 != 0) loss += call.of_lse2 * w * lse * lse;
        write_loss(call.losses, row, loss);
        return loss;
    }

    XENT_INLINE void write_loss(void* to, int64_t row, double loss) const {
        if (!to) return;
        switch (call.loss_dtype) {
            case FLOAT16: assign(static_cast<fp16*>(to)[row], loss); break;
            case BFLOAT16: assign(static_cast<bf16*>(to)[row], loss); break;
            case FLOAT32: assign(static_cast<float*>(to)[row], loss); break;
            default: static_cast<double*>(to)[row] = loss;
        }
    }

    // The gradient at the largest entry, without 1 - p_k; all class weights are 1.
    XENT_INLINE double at_top(const Row& r, int64_t t, const Slopes& s) const {
        double p = 1 / (1 + r.tail), others = r.tail / (1 + r.tail);
        double classes = double(call.v);
        double uniform = others < 0.5 ? (classes - 1) - classes * others : classes * p - 1;
        return s.at_target * (t == r.k ? -others : p) + s.of_class * uniform + s.lse * p;
    }
    // The gradient at a target that is not the largest entry.
    XENT_INLINE double at_target(double p, const Slopes& s) const {
        return s.at_target * (p - 1) + s.of_class * (double(call.v) * p - 1) + s.lse * p;
    }
};

// The losses of the rows that one partial sum takes, with what each addition loses.
struct PartialSum {
    double high = 0, low = 0;
    XENT_INLINE void add(double term) {
        double next = high + term, shadow = next - high;
        double lost = (high - (next - shadow)) + (term - shadow);
        low += lost == lost ? lost : 0;  // an infinite sum lost nothing
        high = next;
    }
    XENT_INLINE double total() const { return high + low; }
};

// ---- Rows whose classes lie side by side --------------------------------------------------------

const int64_t PIECE_BYTES = 16384;  // half a first-level cache
template <class K>
constexpr int64_t PIECE = PIECE_BYTES / int64_t(sizeof(typename K::Storage));

// A part of a row: its largest entry, and the sum of the exponentials of the others.
template <class K>
struct Piece {
    double top, whole, rest, spread, base;  // whole: the exponential of the largest
    int64_t k, length;
    Unit<K> unit;
};

template <class K, bool SPREAD, bool KEEP>
struct PieceWork {
    typedef typename K::Storage S;
    typedef typename K::Work W;
    typedef typename Vector<W>::type V;
    static constexpr int GROUP = 4 * lanes<W>;

    const Units<K> in_unit;
    const V base;
    const W whole;  // the exponential of the largest entry
    Sum<W> rest, spread;

    XENT_INLINE PieceWork(const Units<K>& units, W base_, W whole_)
        : in_unit(units), base(all<W>(base_)), whole(whole_) {}

    XENT_INLINE void group(const S* p, W* kept) {
        V x[4];
        get(p, x[0], x[1]);
        get(p + GROUP / 2, x[2], x[3]);
        if constexpr (SPREAD)
            spread.add(((base - x[0]) + (base - x[1])) + ((base - x[2]) + (base - x[3])));
        add(x, kept);
    }
    XENT_INLINE void add(V (&x)[4], W* kept) {
        exponentiate<K>(x, in_unit);
        if constexpr (KEEP) {
            put(kept, x[0], x[1]);
            put(kept + GROUP / 2, x[2], x[3]);
        }
        rest.add((x[0] + x[1]) + (x[2] + x[3]));
    }
    // At most a group, the entry at `without` left out.
#if XENT_V4
    XENT_INLINE void part(const S* p, int64_t n, int64_t without, W* kept) {
        const uint64_t in = n == 64 ? ~uint64_t(0) : (uint64_t(1) << n) - 1;
        const bool has = without >= 0 && without < n;
        V x[4];
        if constexpr (SPREAD) {
            get_some(p, in, base[0], x);
            spread.add(((base - x[0]) + (base - x[1])) + ((base - x[2]) + (base - x[3])));
        }
        get_part<S, W>(p, n, without, x);
        exponentiate<K>(x, in_unit);
        rest.add((x[0] + x[1]) + (x[2] + x[3]));
        if constexpr (KEEP) {
            put_some(kept, in, x);
            if (has) kept[without] = whole;  // of one piece of many
        }
    }
#else
    XENT_INLINE void part(const S* p, int64_t n, int64_t without, W* kept) {
        W exps[GROUP];
        if constexpr (SPREAD) {
            V terms{};
            for (int i = 0; i < n; i++) terms[i % lanes<W>] += base[0] - W(value(p[i]));
            spread.add(terms);
        }
        V x[4];
        get_part<S, W>(p, n, without, x);
        add(x, exps);
        if constexpr (KEEP) {
            if (without >= 0 && without < n) exps[without] = whole;  // of one piece of many
            memcpy(kept, exps, n * sizeof(W));
        }
    }
#endif
};

#if XENT_V4
// The same for half precision by its bits, which order numbers above 0; false where none is above 0
// or one is NaN.
template <class S>
bool largest_by_bits(const S* x, int64_t n, uint16_t infinity, S& top, int64_t& k) {
    const int64_t full = n / 64, left = n % 64;
    __m512i tops[PIECE_BYTES / 128 + 1];
    __m512i best = _mm512_setzero_si512();
    for (int64_t g = 0; g < full; g++) {
        const S* p = x + g * 64;
        tops[g] = _mm512_max_epi16(_mm512_loadu_si512(p), _mm512_loadu_si512(p + 32));
        best = _mm512_max_epi16(best, tops[g]);
    }
    if (left) {
        const uint64_t in = (uint64_t(1) << left) - 1;
        const S* p = x + full * 64;
        tops[full] = _mm512_max_epi16(_mm512_maskz_loadu_epi16(__mmask32(in), p),
                                      _mm512_maskz_loadu_epi16(__mmask32(in >> 32), p + 32));
        best = _mm512_max_epi16(best, tops[full]);
    }
    const __m256i both = _mm256_max_epi16(_mm512_castsi512_si256(best),
                                          _mm512_extracti64x4_epi64(best, 1));
    // The least of what is left of the largest 16-bit number: there is an instruction for it.
    const __m128i four = _mm_sub_epi16(
        _mm_set1_epi16(0x7fff),
        _mm_max_epi16(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1)));
    top.bits = uint16_t(0x7fff - _mm_extract_epi16(_mm_minpos_epu16(four), 0));
    if (top.bits == 0 || top.bits > infinity) return false;
    const __m512i equal = _mm512_set1_epi16(short(top.bits));
    int64_t at = 0;
    while (!_mm512_cmpeq_epi16_mask(tops[at], equal)) at++;
    k = at * 64;
    while (x[k].bits != top.bits) k++;
    return true;
}
#endif

// The largest entry of at most a piece, and where it first is; 0 where all are NaN.
template <class K>
typename K::Work largest_of(const typename K::Storage* x, int64_t n, int64_t& k) {
    typedef typename K::Storage S;
    typedef typename K::Work W;
    typedef typename Vector<W>::type V;
    typedef typename Vector<W>::ints I;
    constexpr int GROUP = 4 * lanes<W>;
#if XENT_V4
    if constexpr (sizeof(S) == 2) {
        S most;
        if (largest_by_bits(x, n, lowest<S>().bits & 0x7fff, most, k)) return W(value(most));
    }
#endif
    // Each lane remembers the group that its largest entry is of: where that is takes no search.
    const int64_t groups = (n + GROUP - 1) / GROUP;
    V best = all<W>(-INFINITY);
    I group{}, of{};
    for (int64_t g = 0; g < groups; g++) {
        V v[4];
        if (n - g * GROUP >= GROUP) {
            get(x + g * GROUP, v[0], v[1]);
            get(x + g * GROUP + GROUP / 2, v[2], v[3]);
        } else {
            get_part<S, W>(x + g * GROUP, n - g * GROUP, -1, v);
        }
        const V top = larger(larger(v[0], v[1]), larger(v[2], v[3]));
        of = top > best ? group : of;
        best = larger(top, best);
        group += 1;
    }
    const W top = largest_lane<W>(best);
    const int64_t at = least_lane<W>(best == all<W>(top) ? of : ~I{});
    k = first_equal<S, W>(x, at < groups ? at * GROUP : n, n, top);
    if (k >= n) k = 0;
    return top;
}

// Add the exponentials of a piece to `work`, but that of entry k.
template <class K, bool KEEP, class Work>
XENT_INLINE void add_others(Work& work, const typename K::Storage* x, int64_t n, int64_t k,
                            typename K::Work* kept, const char* ahead) {
    typedef typename K::Storage S;
    constexpr int GROUP = 4 * lanes<typename K::Work>, LINES = (GROUP * sizeof(S) + 63) / 64;
    const int64_t full = n / GROUP, left = n % GROUP, at = k / GROUP;
    int64_t g = 0;
    const int64_t stops[2] = {at < full ? at : full, full};
    for (int part = 0; part < 2; part++) {
        for (; g < stops[part]; g++) {
            for (int i = 0; i < LINES; i++)
                __builtin_prefetch(ahead + g * GROUP * sizeof(S) + i * 64);
            work.group(x + g * GROUP, KEEP ? kept + g * GROUP : nullptr);
        }
        if (g == at && g < full) {
            work.part(x + g * GROUP, GROUP, k - g * GROUP, KEEP ? kept + g * GROUP : nullptr);
            g++;
        }
    }
    if (left)
        work.part(x + full * GROUP, left, k - full * GROUP, KEEP ? kept + full * GROUP : nullptr);
}

template <class K, bool SPREAD, bool KEEP>
Piece<K> sum_piece(const typename K::Storage* x, int64_t n, typename K::Work* kept,
                   const char* ahead) {
    typedef typename K::Work W;
    Piece<K> piece;
    piece.top = double(largest_of<K>(x, n, piece.k));
    piece.unit = Unit<K>(piece.top);
    piece.base = piece.top == -INFINITY ? 0 : piece.top;
    piece.whole = piece.top == -INFINITY ? 0 : piece.unit.exp_of(piece.top);
    PieceWork<K, SPREAD, KEEP> work(Units<K>(piece.unit), W(piece.base), W(piece.whole));
    add_others<K, KEEP>(work, x, n, piece.k, kept, ahead);
    piece.length = n;
    piece.rest = work.rest.total();
    piece.spread = SPREAD ? work.spread.total() : 0;
    return piece;
}

// The pieces of a row together; `whole` is the exponential of the largest entry in `unit`.
template <class K>
struct RowSum {
    Row row;
    Unit<K> unit;
    double whole = 1;
};

template <class K>
RowSum<K> combine(const Piece<K>* pieces, int64_t count, int64_t classes) {
    RowSum<K> sum;
    int64_t best = 0;
    for (int64_t j = 1; j < count; j++)
        if (pieces[j].top > pieces[best].top) best = j;
    const Piece<K>& first = pieces[best];
    sum.unit = first.unit;
    sum.whole = first.top == -INFINITY ? NAN : first.whole;
    sum.row.top = first.top;
    sum.row.k = best * PIECE<K> + first.k;
    PartialSum rest, spread;
    rest.add(first.rest);
    for (int64_t j = 0; j < count; j++) {
        const Piece<K>& p = pieces[j];
        spread.add(p.spread + (p.base == first.top ? 0 : double(p.length) * (first.top - p.base)));
        if (j == best) continue;
        if (p.top == -INFINITY) rest.add(p.rest);  // 0, or NaN
        else rest.add((p.whole + p.rest) * p.unit.in(first.unit));
    }
    sum.row.tail = rest.total() / sum.whole + (first.top - first.top);
    sum.row.log_sum = log1p(sum.row.tail);
    sum.row.spread = sum.row.log_sum + spread.total() / double(classes);
    return sum;
}

// out = exp(x) factor + bias, from x or from exponentials kept; both in units.
template <class K>
void write_piece(const typename K::Storage* x, int64_t n, const Units<K> in, double factor,
                 double bias, typename K::Storage* out) {
    typedef typename K::Storage S;
    typedef typename K::Work W;
    typedef typename Vector<W>::type V;
    constexpr int GROUP = 4 * lanes<W>;
    const V f = all<W>(W(factor)), shift = all<W>(W(bias));
    S padded[GROUP];
    for (int64_t i = 0; i < n; i += GROUP) {
        const bool part = n - i < GROUP;
        const S* from = x + i;
        if (part) {
            for (int j = 0; j < GROUP; j++) padded[j] = lowest<S>();
            from = static_cast<S*>(memcpy(static_cast<void*>(padded), from, (n - i) * sizeof(S)));
        }
        V e[4];
        get(from, e[0], e[1]);
        get(from + GROUP / 2, e[2], e[3]);
        exponentiate<K>(e, in);
        for (int j = 0; j < 4; j++) e[j] = e[j] * f + shift;
        S* to = part ? padded : out + i;
        put(to, e[0], e[1]);
        put(to + GROUP / 2, e[2], e[3]);
        if (part) memcpy(static_cast<void*>(out + i), padded, (n - i) * sizeof(S));
    }
}

template <class W>
void scale_piece(W* exps, int64_t n, double factor, double bias) {
    typedef typename Vector<W>::type V;
    const W f = W(factor), shift = W(bias);
    const V fs = all<W>(f), shifts = all<W>(shift);
    int64_t i = 0;
    for (; i + lanes<W> <= n; i += lanes<W>) store(exps + i, load(exps + i) * fs + shifts);
    for (; i < n; i++) exps[i] = exps[i] * f + shift;
}

template <class S>
void fill(S* out, int64_t n, int64_t stride, double x) {
    S one;
    assign(one, x);
    if (stride == 1)
        for (int64_t i = 0; i < n; i++) out[i] = one;
    else
        for (int64_t i = 0; i < n; i++) out[i * stride] = one;
}

// One row in pieces. Its three steps can be taken by many threads, a range of pieces each.
template <class K>
struct RowWork {
    typedef typename K::Storage S;
    typedef typename K::Work W;
    static constexpr bool SAME = sizeof(S) == sizeof(W);  // exponentials can be kept in the gradient

    const Problem& problem;
    Piece<K>* pieces;
    int64_t row, t, count;
    const S* x;
    S* out;
    const char* ahead;
    Row found;
    Slopes slopes;
    double whole = 1, at_target = 0;
    Unit<K> unit;

    RowWork(const Problem& p, Piece<K>* pieces_)
        : problem(p), pieces(pieces_), count((p.call.v + PIECE<K> - 1) / PIECE<K>) {}

    bool keeps() const { return SAME && out && problem.call.mode == LOSS; }
    W* kept() const { return reinterpret_cast<W*>(out); }

    void begin(int64_t row_) {
        const Call& c = problem.call;
        row = row_;
        t = problem.target(row);
        int64_t n = row / c.d, d = row % c.d;
        x = static_cast<const S*>(c.logits) + n * c.stride_n + d * c.stride_d;
        out = c.gradient ? static_cast<S*>(c.gradient) + n * c.gradient_n + d * c.gradient_d : nullptr;
        ahead = reinterpret_cast<const char*>(c.d == 1 ? x + c.stride_n : x + c.stride_d);
        at_target = t >= 0 && c.target_kind == INDICES ? value(x[t]) : 0;
    }

    template <bool SPREAD, bool KEEP>
    void sum_range(int64_t first, int64_t stop) {
        const int64_t v = problem.call.v;
        for (int64_t j = first; j < stop; j++) {
            int64_t from = j * PIECE<K>, n = v - from < PIECE<K> ? v - from : PIECE<K>;
            const char* next =
                j + 1 < count ? reinterpret_cast<const char*>(x + from + PIECE<K>) : ahead;
            pieces[j] = sum_piece<K, SPREAD, KEEP>(x + from, n, KEEP ? kept() + from : nullptr, next);
        }
    }
    void sum(int64_t first, int64_t stop) {
        const bool spread = problem.call.flags & SMOOTH;
        if constexpr (SAME) {
            if (keeps()) {
                if (spread) sum_range<true, true>(first, stop);
                else sum_range<false, true>(first, stop);
                return;
            }
        }
        if (spread) sum_range<true, false>(first, stop);
        else sum_range<false, false>(first, stop);
    }

    double finish() {
        const Call& c = problem.call;
        if (c.mode == GRADIENT) {
            found.k = c.k[row];
            found.tail = c.tail[row];
            found.top = value(x[found.k]);
            unit = Unit<K>(found.top);
            whole = unit.exp_of(found.top);
        } else {
            RowSum<K> sum = combine(pieces, count, c.v);
            found = sum.row;
            unit = sum.unit;
            whole = sum.whole;
            if (found.tail != found.tail && !keeps()) find_nan();
        }
        found.miss = found.top - at_target;
        return problem.finish(row, t, found, slopes);
    }
    // As argmax does, NaN counts as the largest.
    void find_nan() {
        for (int64_t c = 0; c < problem.call.v; c++) {
            double v = value(x[c]);
            if (v != v) {
                found.k = c;
                found.top = v;
                return;
            }
        }
    }

    void write(int64_t first, int64_t stop) {
        const Call& c = problem.call;
        double factor = slopes.of_p / (whole * (1 + found.tail)), bias = -slopes.of_class;
        for (int64_t j = first; j < stop; j++) {
            int64_t from = j * PIECE<K>, n = c.v - from < PIECE<K> ? c.v - from : PIECE<K>;
            if constexpr (SAME) {
                if (keeps()) {
                    double f = pieces[j].top == -INFINITY ? factor : factor * pieces[j].unit.in(unit);
                    scale_piece<W>(kept() + from, n, f, bias);
                    continue;
                }
            }
            write_piece<K>(x + from, n, Units<K>(unit), factor, bias, out + from);
        }
    }
    void mend() {  // the two entries that the sweep cannot give to the last digit
        double top = problem.at_top(found, t, slopes);
        double p = t >= 0 ? unit.exp_of(at_target) / (whole * (1 + found.tail)) : 0;
        assign(out[found.k], found.tail == found.tail ? top : NAN);
        if (t >= 0 && t != found.k && problem.call.target_kind == INDICES)
            assign(out[t], problem.at_target(p, slopes));
    }

    double whole_row(int64_t row_) {
        begin(row_);
        if (t == IGNORED) {
            if (out) fill(out, problem.call.v, 1, 0);
            Row none;
            return problem.finish(row, t, none, slopes);
        }
        if (problem.call.mode != GRADIENT) sum(0, count);
        double loss = finish();
        if (out) {
            write(0, count);
            mend();
        }
        return loss;
    }
};

// ---- Many rows together: what follows from their sums is computed for a vector of rows ----------

const int64_t MOST_ROWS = 256;  // of a block

// T gives the units of the exponentials and how far apart they may be; K what lies in memory.
template <class K, class T>
struct BlockWork {
    typedef typename K::Storage S;
    typedef typename K::Work W;
    typedef typename Vector<W>::type V;
    typedef typename Vector<W>::ints I;
    typedef typename Vector<W>::integer Int;
    static constexpr int L = lanes<W>;

    const Problem& problem;
    const int64_t classes;
    W top[MOST_ROWS], center[MOST_ROWS], power[MOST_ROWS], factor[MOST_ROWS], bias[MOST_ROWS];
    Int k[MOST_ROWS];
    double rest[MOST_ROWS], spread[MOST_ROWS], tail[MOST_ROWS], log_sum[MOST_ROWS],
        whole[MOST_ROWS], at_target[MOST_ROWS], exp_target[MOST_ROWS], mended_top[MOST_ROWS],
        mended_target[MOST_ROWS];
    int64_t target[MOST_ROWS];

    explicit BlockWork(const Problem& p) : problem(p), classes(p.call.v) {}

    void read_targets(int64_t row, int64_t rows) {
        const Call& c = problem.call;
        if (c.target_kind != INDICES) {
            for (int64_t i = 0; i < rows; i++) target[i] = 0;
            return;
        }
        const int64_t* from = static_cast<const int64_t*>(c.target) + row;
        const int64_t ignored = c.ignore_index, most = classes;
        for (int64_t i = 0; i < rows; i++) {
            const int64_t t = from[i], found = (t >= 0) & (t < most) ? t : INVALID;
            target[i] = t == ignored ? IGNORED : found;
        }
    }

    // The losses and slopes of all rows, in loops without a branch: what `Problem` does for one.
    void finish_all(int64_t rows, PartialSum& sum) {
        const Call& c = problem.call;
        const double of_nll = c.of_nll, of_smooth = c.of_smooth, count = double(classes);
        const bool smooth = c.flags & SMOOTH;
        double w[MOST_ROWS], losses[MOST_ROWS];
        if (c.weight && c.target_kind == INDICES)
            for (int64_t i = 0; i < rows; i++) w[i] = problem.row_weight(target[i]);
        else
            for (int64_t i = 0; i < rows; i++) w[i] = target[i] < 0 ? 0 : 1;
        for (int64_t i = 0; i < rows; i++) {
            const double all_of_it = log_sum[i] + (top[i] - at_target[i]);
            const double mean = smooth ? log_sum[i] + spread[i] / count : 0;
            const double nll = of_nll == 0 ? 0 : of_nll * times(w[i], all_of_it);
            const double loss = nll + (of_smooth == 0 ? 0 : of_smooth * mean);
            losses[i] = target[i] >= 0 ? loss : target[i] == IGNORED ? 0 : NAN;
        }
        Sum<double> total;
        for (int64_t i = 0; i < rows; i += lanes<double>) total.add(load(losses + i));
        sum.add(total.total());
        if (!c.gradient) return;
        const double scale_nll = of_nll == 0 ? 0 : of_nll * problem.scale;
        const double of_class = of_smooth == 0 ? 0 : of_smooth * problem.scale / count;
        for (int64_t i = 0; i < rows; i++) {
            const bool kept = target[i] != IGNORED, bad = target[i] == INVALID;
            const double at_t = bad ? NAN : scale_nll * w[i], total_of_class = of_class * count;
            const double part = 1 / (1 + tail[i]), others = tail[i] * part;
            const double share = part / whole[i];
            const double uniform = others < 0.5 ? (count - 1) - count * others : count * part - 1;
            const double own = target[i] == int64_t(k[i]) ? -others : part;
            factor[i] = W(kept ? (at_t + total_of_class) * share : 0);
            bias[i] = W(kept ? -of_class : 0);
            mended_top[i] = at_t * own + of_class * uniform;
            const double p = exp_target[i] * share;
            mended_target[i] = at_t * (p - 1) + of_class * (count * p - 1);
        }
    }

    void finish(int64_t row, int64_t rows, const S* x, int64_t stride, PartialSum& sum) {
        const Call& c = problem.call;
        // With one loss for all rows nothing is asked of a row but its share.
        if (c.mode == LOSS && !c.losses && c.of_lse2 == 0) finish_all((rows + L - 1) / L * L, sum);
        else
            for (int64_t i = 0; i < rows; i++) finish_one(row, i, x + i * stride, sum);
    }
    void finish_one(int64_t row, int64_t i, const S* x, PartialSum& sum) {
        const Call& c = problem.call;
        Row r;
        r.top = top[i];
        r.k = k[i];
        r.tail = tail[i];
        r.log_sum = log_sum[i];
        r.miss = r.top - at_target[i];
        if (c.flags & SMOOTH) r.spread = r.log_sum + spread[i] / double(classes);
        const int64_t t = target[i];
        if (r.tail != r.tail && c.mode != GRADIENT)
            for (int64_t j = 0; j < classes; j++)
                if (double v = value(x[j * c.stride_v]); v != v) {
                    r.k = j;
                    r.top = v;
                    break;
                }
        Slopes s;
        sum.add(problem.finish(row + i, t, r, s));
        if (!c.gradient) return;
        const double share = 1 / (whole[i] * (1 + r.tail));
        factor[i] = W(t == IGNORED ? 0 : s.of_p * share);
        bias[i] = W(t == IGNORED ? 0 : -s.of_class);
        mended_top[i] = r.tail == r.tail ? problem.at_top(r, t, s) : NAN;
        mended_target[i] = problem.at_target(exp_target[i] * share, s);
    }
    Units<T> units(int64_t i) {
        V m = load(top + i), size = m < 0 ? -m : m;
        I far = (size > W(T::NEAR)) & (m > -W(INFINITY));
        V c = far ? m : V{};
        V p = ((m * W(M_LOG2E) - W(0.5)) + Bits<W>::MAGIC) - Bits<W>::MAGIC;
        p = far | (m == -W(INFINITY)) ? V{} : p;
        store(center + i, c);
        store(power + i, p);
        return Units<T>(c, p);
    }
    // What follows from the sums, in double.
    void add_up(int64_t rows) {
        for (int64_t i = 0; i < rows; i += lanes<double>) {
            vd m, c, p;
            for (int j = 0; j < lanes<double>; j++)
                m[j] = top[i + j], c[j] = center[i + j], p[j] = power[i + j];
            vd r = ((m - c) - p * Bits<double>::LN2_HIGH) - p * Bits<double>::LN2_LOW;
            vd e = exp_of(r);
            vd t = load(rest + i) / e + (m - m);
            if (problem.call.mode == GRADIENT) t = load(tail + i);
            store(whole + i, e);
            store(tail + i, t);
            store(log_sum + i, log1p_of(t));
        }
    }

    // The exponentials of the targets' logits, each by a power of its own: they may lie far below.
    void exp_targets(int64_t rows) {
        for (int64_t i = 0; i < rows; i += lanes<double>) {
            vd c, p;
            for (int j = 0; j < lanes<double>; j++) c[j] = center[i + j], p[j] = power[i + j];
            const vd x = load(at_target + i) - c;
            vd shifted = x * M_LOG2E + Bits<double>::MAGIC;
            const vd own = shifted - Bits<double>::MAGIC;
            const vd r = (x - own * Bits<double>::LN2_HIGH) - own * Bits<double>::LN2_LOW;
            const vd apart = own - p;
            vd half = apart < -2000 ? vd{} - 2000 : apart;
            half = (half * 0.5 + Bits<double>::MAGIC) - Bits<double>::MAGIC;
            const vd other = (apart < -2000 ? vd{} - 2000 : apart) - half;
            vd e = exp_reduced<12>(r) * power_of_two(half) * power_of_two(other);
            e = x < -1e6 ? vd{} : e;  // -inf too
            store(exp_target + i, e);
        }
    }
    static vd power_of_two(vd n) {
        typedef Vector<double>::ints I64;
        return (vd)((I64)(n + (Bits<double>::MAGIC + Bits<double>::BIAS)) << 52);
    }
};

// ---- Short rows, many together ------------------------------------------------------------------

const int64_t LINES = 16;  // rows of a block

template <class K>
struct LineWork : BlockWork<K, K> {
    typedef BlockWork<K, K> Block;
    using typename Block::S;
    using typename Block::V;
    using typename Block::W;
    using Block::L;
    using Block::at_target, Block::bias, Block::center, Block::classes, Block::factor, Block::k,
        Block::mended_target, Block::mended_top, Block::power, Block::problem, Block::rest,
        Block::spread, Block::tail, Block::target, Block::top;
    static constexpr bool SAME = sizeof(S) == sizeof(W);  // exponentials can be kept in the gradient

    explicit LineWork(const Problem& p) : Block(p) {}

    void run(int64_t row, int64_t rows, PartialSum& sum) {
        const Call& c = problem.call;
        const int64_t n = row / c.d, d = row % c.d;
        const S* x = static_cast<const S*>(c.logits) + n * c.stride_n + d * c.stride_d;
        const int64_t stride = c.d == 1 ? c.stride_n : c.stride_d;
        const int64_t padded = (rows + L - 1) / L * L;
        S* out = c.gradient ? static_cast<S*>(c.gradient) + n * c.gradient_n + d * c.gradient_d
                            : nullptr;
        const int64_t out_stride = c.d == 1 ? c.gradient_n : c.gradient_d;
        Block::read_targets(row, rows);
        for (int64_t i = rows; i < padded; i++) target[i] = IGNORED;
        const bool keep = SAME && out && c.mode == LOSS;
        for (int64_t i = 0; i < padded; i++) {
            top[i] = center[i] = power[i] = 0, k[i] = 0;
            rest[i] = spread[i] = tail[i] = at_target[i] = 0;
            if (target[i] == IGNORED) continue;
            const S* line = x + i * stride;
            int64_t at = c.mode == GRADIENT ? c.k[row + i] : 0;
            top[i] = c.mode == GRADIENT ? W(value(line[at])) : largest_of<K>(line, classes, at);
            k[i] = typename Block::Int(at);
            const Unit<K> unit{double(top[i])};
            center[i] = W(unit.center), power[i] = W(unit.power);
            if (target[i] >= 0 && c.target_kind == INDICES) at_target[i] = value(line[target[i]]);
            if (c.mode == GRADIENT) tail[i] = c.tail[row + i];
            else add(i, line, keep ? out + i * out_stride : nullptr, stride);
        }
        Block::add_up(padded);
        if (out) Block::exp_targets(padded);
        Block::finish(row, rows, x, stride, sum);
        if (!out) return;
        for (int64_t i = 0; i < rows; i++) write(i, x + i * stride, out + i * out_stride, keep);
    }

    Units<K> units_of(int64_t i) const { return Units<K>(all<W>(center[i]), all<W>(power[i])); }

    void add(int64_t i, const S* x, S* out, int64_t stride) {
        const char* ahead = reinterpret_cast<const char*>(x + stride);
        if (problem.call.flags & SMOOTH) {
            if (out) add_line<true, SAME>(i, x, out, ahead);
            else add_line<true, false>(i, x, out, ahead);
        } else {
            if (out) add_line<false, SAME>(i, x, out, ahead);
            else add_line<false, false>(i, x, out, ahead);
        }
    }
    template <bool SPREAD, bool KEEP>
    void add_line(int64_t i, const S* x, S* out, const char* ahead) {
        const W base = top[i] == -INFINITY ? 0 : top[i];
        PieceWork<K, SPREAD, KEEP> work(units_of(i), base, W(1));
        add_others<K, KEEP>(work, x, classes, k[i], reinterpret_cast<W*>(out), ahead);
        rest[i] = work.rest.total();
        if constexpr (SPREAD) spread[i] = work.spread.total();
    }

    void write(int64_t i, const S* x, S* out, bool kept) {
        if (target[i] == IGNORED) return fill(out, classes, 1, 0);
        bool done = false;
        if constexpr (SAME)
            if (kept) {
                scale_piece<W>(reinterpret_cast<W*>(out), classes, factor[i], bias[i]);
                done = true;
            }
        if (!done) write_piece<K>(x, classes, units_of(i), factor[i], bias[i], out);
        assign(out[k[i]], tail[i] == tail[i] ? mended_top[i] : NAN);
        if (target[i] >= 0 && target[i] != k[i] && problem.call.target_kind == INDICES)
            assign(out[target[i]], mended_target[i]);
    }
};

// ---- Measures of saved predictions ---------------------------------------------------------------
//
// With e = exp(x_c - m) and the gap m - x_c >= 0, what a row adds up to beside its tail: e^2, which
// gives the Brier score, and e gap and e gap^2, which give the entropy and the derivatives of nll by
// the scale. The largest entry is in none of these sums.

template <class K, bool CURVE>
struct MeasureSums {
    typedef typename K::Storage S;
    typedef typename K::Work W;
    typedef typename Vector<W>::type V;
    static constexpr int GROUP = 4 * lanes<W>;

    const Units<K> in_unit;
    const V scale, top, own;
    Sum<W> rest, squares, gaps, curves;
    typename Vector<W>::ints above{};

    XENT_INLINE MeasureSums(const Units<K>& units, W scale_, W top_, W own_)
        : in_unit(units), scale(all<W>(scale_)), top(all<W>(top_)), own(all<W>(own_)) {}

    XENT_INLINE void group(const S* p, W*) {
        V x[4];
        get(p, x[0], x[1]);
        get(p + GROUP / 2, x[2], x[3]);
        add(x);
    }
    XENT_INLINE void part(const S* p, int64_t n, int64_t without, W*) {
        V x[4];
        get_part<S, W>(p, n, without, x);
        add(x);
    }
    XENT_INLINE void add(V (&x)[4]) {
        for (int i = 0; i < 4; i++) x[i] = x[i] * scale;
        for (int i = 0; i < 4; i++) above -= x[i] > own;
        add_scaled(x);
    }
    XENT_INLINE void add_scaled(V (&x)[4]) {
        V few[3]{};
        take(x, few);
        put(few);
    }
    // Some vectors: their exponentials are added, and to `few` what else they add up to.
    template <int COUNT>
    XENT_INLINE void take(V (&x)[COUNT], V (&few)[3]) {
        V given[COUNT], gap[COUNT], sum{};
        for (int i = 0; i < COUNT; i++) given[i] = x[i];
        exponentiate<K>(x, in_unit);
        for (int i = 0; i < COUNT; i++)  // 0 where the exponential is, and not infinite
            gap[i] = given[i] - in_unit.center < in_unit.limit ? V{} : top - given[i];
        if constexpr (COUNT == 4) sum = (x[0] + x[1]) + (x[2] + x[3]);
        else
            for (int i = 0; i < COUNT; i++) sum = sum + x[i];
        rest.add(sum);
        for (int i = 0; i < COUNT; i++) few[0] = few[0] + x[i] * x[i];
        for (int i = 0; i < COUNT; i++) {
            if constexpr (CURVE) few[2] = few[2] + x[i] * gap[i] * gap[i];
            few[1] = few[1] + x[i] * gap[i];
        }
    }
    XENT_INLINE void put(const V (&few)[3]) {
        squares.add(few[0]);
        gaps.add(few[1]);
        if constexpr (CURVE) curves.add(few[2]);
    }
};

template <class S>
constexpr bool in_order = true;  // of memory, are the lanes of two `get`s
template <>
constexpr bool in_order<bf16> = false;

template <class K>
struct MeasureWork : BlockWork<K, K> {
    typedef BlockWork<K, K> Block;
    using typename Block::S;
    using typename Block::W;
    using Block::L;
    using Block::at_target, Block::center, Block::classes, Block::exp_target, Block::k,
        Block::log_sum, Block::power, Block::problem, Block::rest, Block::tail, Block::target,
        Block::top, Block::whole;
    typedef typename Vector<W>::type V;
    typedef typename Vector<W>::ints Ints;
    static constexpr int64_t SHORT = 256;  // classes of a row that is copied
    double squares[LINES], gaps[LINES], curves[LINES], high[LINES];
    int64_t above[LINES], at_top[LINES];
#if XENT_V4
    V copies[LINES][SHORT / L];
    vd parts[4][LINES];  // vectors whose sums are rest, squares, gaps and curves
#endif

    explicit MeasureWork(const Problem& p) : Block(p) {}

    void run(int64_t row, int64_t rows, PartialSum&) {
        const Call& c = problem.call;
        const int64_t n = row / c.d, d = row % c.d;
        const S* x = static_cast<const S*>(c.logits) + n * c.stride_n + d * c.stride_d;
        const int64_t stride = c.d == 1 ? c.stride_n : c.stride_d;
        const int64_t padded = (rows + L - 1) / L * L;
        const W scale = W(c.logit_scale);
        Block::read_targets(row, rows);
        for (int64_t i = rows; i < padded; i++) target[i] = IGNORED;
        // In two sweeps of the rows of a block: the way through both would be too long for the CPU
        // to work on two rows at a time.
        for (int64_t i = 0; i < padded; i++) {
            top[i] = 0, k[i] = 0;
            rest[i] = tail[i] = at_target[i] = squares[i] = gaps[i] = curves[i] = 0;
#if XENT_V4
            parts[0][i] = parts[1][i] = parts[2][i] = parts[3][i] = vd{};
#endif
            above[i] = 0;
            if (target[i] == IGNORED) continue;
            const S* line = x + i * stride;
            if (target[i] >= 0) at_target[i] = W(value(line[target[i]])) * scale;
            find_top(line, i, scale);
        }
        for (int64_t i = 0; i < padded; i += L) Block::units(i);
        for (int64_t i = 0; i < rows; i++) {
            if (target[i] == IGNORED) continue;
            const S* line = x + i * stride;
            const char* ahead = reinterpret_cast<const char*>(line + rows * stride);
            if (c.curve) add<true>(i, line, scale, ahead);
            else add<false>(i, line, scale, ahead);
        }
#if XENT_V4
        if constexpr (sizeof(W) == 4)
            for (int64_t i = 0; i < padded; i += lanes<double>) {
                store(rest + i, sums_of(parts[0] + i));
                store(squares + i, sums_of(parts[1] + i));
                store(gaps + i, sums_of(parts[2] + i));
                store(curves + i, sums_of(parts[3] + i));
            }
#endif
        for (int64_t i = 0; i < padded; i++)
            high[i] = top[i], at_top[i] = -int64_t(target[i] == int64_t(k[i]));
        Block::add_up(padded);
        Block::exp_targets(padded);
        for (int64_t i = 0; i < rows; i += lanes<double>)
            write(row + i, i, rows - i < lanes<double> ? rows - i : lanes<double>);
    }
    void find_top(const S* x, int64_t i, W scale) {
#if XENT_V4
        if constexpr (sizeof(W) == 4 && in_order<S>) {
            if (classes <= SHORT) return find_short(x, i, scale);
        }
#endif
        W best = -INFINITY;
        for (int64_t from = 0; from < classes; from += PIECE<K>) {
            int64_t at = 0;
            const int64_t left = classes - from;
            const W found = largest_of<K>(x + from, left < PIECE<K> ? left : PIECE<K>, at);
            if (from && !(found > best)) continue;
            best = found;
            k[i] = typename Block::Int(from + at);
        }
        top[i] = best * scale;
    }
    template <bool CURVE>
    XENT_INLINE void add(int64_t i, const S* x, W scale, const char* ahead) {
        const Units<K> units(all<W>(center[i]), all<W>(power[i]));
#if XENT_V4
        if constexpr (sizeof(W) == 4 && in_order<S>) {
            if (classes <= SHORT) return add_short<CURVE>(i, units, ahead);
        }
#endif
        const W own = W(at_target[i]);
        MeasureSums<K, CURVE> sums(units, scale, top[i], own);
        add_others<K, false>(sums, x, classes, k[i], nullptr, ahead);
        above[i] = (top[i] > own) + count_of(sums.above);
        keep(i, sums);
    }
#if XENT_V4
    // The same of short rows, which are copied, the largest entry as -inf: no masks from there on.
    XENT_INLINE void find_short(const S* x, int64_t i, W scale) {
        const int64_t vectors = (classes + L - 1) / L, left = classes - (vectors - 1) * L;
        V* copy = copies[i];
        V best = all<W>(-INFINITY);
        Ints group{}, of{};
        for (int64_t g = 0; g < vectors; g++) {
            copy[g] = get_some(x + g * L, g + 1 < vectors ? 0xffff : (1 << left) - 1) * scale;
            of = copy[g] > best ? group : of;
            best = larger(copy[g], best);
            group += 1;
        }
        int64_t higher = 0;
        const __m512 own = _mm512_set1_ps(float(at_target[i]));
        for (int64_t g = 0; g < vectors; g++)
            higher += __builtin_popcount(_mm512_cmp_ps_mask((__m512)copy[g], own, _CMP_GT_OQ));
        above[i] = higher;
        top[i] = largest_lane<W>(best);
        const Ints lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        const int64_t at = least_lane<W>(best == all<W>(W(top[i])) ? of * L + lane : ~Ints{});
        k[i] = typename Block::Int(at < classes ? at : 0);  // 0 where all are NaN
        reinterpret_cast<W*>(copy)[k[i]] = -INFINITY;
    }
    template <bool CURVE>
    XENT_INLINE void add_short(int64_t i, const Units<K>& units, const char* ahead) {
        const int64_t vectors = (classes + L - 1) / L;
        const V* from = copies[i];
        MeasureSums<K, CURVE> sums(units, 1, top[i], 0);
        for (int64_t at = 0; at < classes * int64_t(sizeof(S)); at += 64)
            __builtin_prefetch(ahead + at);
        V few[3]{};
        for (int64_t g = 0; g + 4 <= vectors; g += 4, from += 4) take<4>(sums, from, few);
        if (vectors % 4 == 3) take<3>(sums, from, few);
        if (vectors % 4 == 2) take<2>(sums, from, few);
        if (vectors % 4 == 1) take<1>(sums, from, few);
        sums.put(few);
        keep(i, sums);
    }
    template <int COUNT, bool CURVE>
    static XENT_INLINE void take(MeasureSums<K, CURVE>& sums, const V* from, V (&few)[3]) {
        V x[COUNT];
        for (int j = 0; j < COUNT; j++) x[j] = from[j];
        sums.take(x, few);
    }
#endif
    template <bool CURVE>
    XENT_INLINE void keep(int64_t i, const MeasureSums<K, CURVE>& sums) {
#if XENT_V4
        if constexpr (sizeof(W) == 4) {
            parts[0][i] = sums.rest.low + sums.rest.high;
            parts[1][i] = sums.squares.low + sums.squares.high;
            parts[2][i] = sums.gaps.low + sums.gaps.high;
            parts[3][i] = sums.curves.low + sums.curves.high;
            return;
        }
#endif
        rest[i] = sums.rest.total();
        squares[i] = sums.squares.total();
        gaps[i] = sums.gaps.total();
        curves[i] = sums.curves.total();
    }
#if XENT_V4
    // The sum of each of 8 vectors; one after the other, they would wait for their own additions.
    static XENT_INLINE vd sums_of(const vd* x) {
        const __m512d low = fours(pairs(x[0], x[1]), pairs(x[2], x[3]));
        const __m512d high = fours(pairs(x[4], x[5]), pairs(x[6], x[7]));
        return (vd)fours(low, high);
    }
    static XENT_INLINE __m512d pairs(vd a, vd b) {
        const __m512d x = (__m512d)a, y = (__m512d)b;
        return _mm512_add_pd(_mm512_unpacklo_pd(x, y), _mm512_unpackhi_pd(x, y));
    }
    static XENT_INLINE __m512d fours(__m512d x, __m512d y) {
        const __m512d even = _mm512_shuffle_f64x2(x, y, 0x88), odd = _mm512_shuffle_f64x2(x, y, 0xdd);
        return _mm512_add_pd(even, odd);
    }
#endif
    static XENT_INLINE int64_t count_of(typename Block::I counts) {
#if XENT_V4
        if constexpr (sizeof(W) == 4) return _mm512_reduce_add_epi32((__m512i)counts);
        else return _mm512_reduce_add_epi64((__m512i)counts);
#endif
        int64_t count = 0;
        for (int j = 0; j < L; j++) count += counts[j];
        return count;
    }
    XENT_INLINE void write(int64_t to, int64_t i, int64_t rows) const {
        typedef Vector<double>::ints I64;
        const Call& c = problem.call;
        const I64 t = *reinterpret_cast<const I64*>(target + i);
        const I64 at = *reinterpret_cast<const I64*>(at_top + i);
        const I64 kept = t != IGNORED;
        const vd zero{}, none = t == INVALID ? zero + NAN : zero;
        const vd rest_ = load(tail + i), m = load(high + i), log = load(log_sum + i);
        const vd part = 1 / (1 + rest_), share = part / load(whole + i);
        const vd p = at ? part : load(exp_target + i) * share;
        const vd gap = load(gaps + i) * share, miss = m - load(at_target + i);
        const vd others = load(squares + i) * share * share;  // the squares but the largest's
        const vd square = at ? rest_ * part : 1 - p;
        const vd squared = at ? others : part * part + others - p * p;
        const vd bound = (m - m) == 0 ? m + log : m;
        put(c.lse, to, rows, kept ? bound : zero);
        put(c.nll, to, rows, (kept ? log + miss : zero) + none);
        put(c.tail, to, rows, kept ? rest_ : zero + double(c.v - 1));
        put(c.entropy, to, rows, kept ? log + gap : zero);
        put(c.confidence, to, rows, kept ? part : zero);
        put(c.brier, to, rows, (kept ? square * square + squared : zero) + none);
        put(c.slope, to, rows, (kept ? miss - gap : zero) + none);
        put(c.curve, to, rows, kept ? load(curves + i) * share - gap * gap : zero);
        for (int64_t j = 0; j < rows; j++) {
            if (c.k) c.k[to + j] = k[i + j];
            if (c.above) c.above[to + j] = above[i + j];
        }
    }
    static XENT_INLINE void put(double* all_of_it, int64_t to, int64_t rows, vd numbers) {
        if (!all_of_it) return;
        if (rows == lanes<double>) store(all_of_it + to, numbers);
        else memcpy(all_of_it + to, &numbers, rows * sizeof(double));
    }
};

// ---- Few classes, or classes that do not lie side by side: a tile of classes by rows ------------

const int64_t TILE_BYTES = 65536;

template <class W>
int64_t tile_rows(int64_t classes) {
    int64_t rows = TILE_BYTES / (classes * int64_t(sizeof(W))) / lanes<W> * lanes<W>;
    return rows < lanes<W> ? lanes<W> : rows > MOST_ROWS ? MOST_ROWS : rows;
}

// Every lane is a row: no sum across lanes. K gives the types in memory and in the tile.
template <class K>
struct TileWork : BlockWork<K, Tile<typename K::Work>> {
    typedef Tile<typename K::Work> T;
    typedef BlockWork<K, T> Block;
    using typename Block::I;
    using typename Block::Int;
    using typename Block::S;
    using typename Block::V;
    using typename Block::W;
    using Block::L;
    using Block::at_target, Block::bias, Block::classes, Block::exp_target, Block::factor, Block::k,
        Block::mended_target, Block::mended_top, Block::problem, Block::rest, Block::spread,
        Block::tail, Block::target, Block::top;

    const int64_t width;  // the tile: classes x width
    W* tile;

    TileWork(const Problem& p, W* memory)
        : Block(p), width(tile_rows<W>(p.call.v)), tile(memory) {}

    void gather(const S* x, int64_t rows, int64_t stride, int64_t class_stride) {
        if (stride == 1) {
            for (int64_t c = 0; c < classes; c++) {
                const S* from = x + c * class_stride;
                copy(from, rows, tile + c * width);
                // Runs this short are over before the CPU sees them as such: the next tile's.
                for (int64_t i = 0; i < rows; i += 64 / sizeof(S))
                    __builtin_prefetch(from + rows + i, 0, 2);
            }
        } else if (!gather_lanes(x, rows, stride, class_stride)) {
            for (int64_t i = 0; i < rows; i++)
                for (int64_t c = 0; c < classes; c++)
                    tile[c * width + i] = W(value(x[i * stride + c * class_stride]));
        }
        for (int64_t i = 0; i < (rows + L - 1) / L * L; i++)
            if (i >= rows || target[i] == IGNORED)  // whatever an ignored row holds
                for (int64_t c = 0; c < classes; c++) tile[c * width + i] = 0;
    }
    void scatter(S* out, int64_t rows, int64_t stride, int64_t class_stride) {
        if (stride == 1) {
            for (int64_t c = 0; c < classes; c++)
                copy(tile + c * width, rows, out + c * class_stride);
        } else {
            for (int64_t i = 0; i < rows; i++)
                for (int64_t c = 0; c < classes; c++)
                    assign(out[i * stride + c * class_stride], tile[c * width + i]);
        }
    }
    // The same with the CPU's own gather, where it has one that is faster.
    bool gather_lanes(const S* x, int64_t rows, int64_t stride, int64_t class_stride) {
#if XENT_V4
        if constexpr (sizeof(S) == 4) {
            if (stride < 0 || stride >= (1 << 26)) return false;
            const __m512i lane =
                _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            const __m512i apart = _mm512_mullo_epi32(lane, _mm512_set1_epi32(int(stride)));
            for (int64_t i = 0; i < rows; i += 16) {
                const __mmask16 in = rows - i < 16 ? __mmask16((1u << (rows - i)) - 1) : 0xffff;
                for (int64_t c = 0; c < classes; c++) {
                    const __m512 v = _mm512_mask_i32gather_ps(
                        _mm512_setzero_ps(), in, apart, x + i * stride + c * class_stride, 4);
                    if constexpr (sizeof(W) == 4) {
                        store(tile + c * width + i, (vf)v);
                    } else {
                        vd low, high;
                        widen((vf)v, low, high);
                        store(tile + c * width + i, low);
                        if (i + 8 < (rows + L - 1) / L * L) store(tile + c * width + i + 8, high);
                    }
                }
            }
            return true;
        }
#endif
        (void)x, (void)rows, (void)stride, (void)class_stride;
        return false;
    }
    static void copy(const W* from, int64_t n, W* to) { memcpy(to, from, n * sizeof(W)); }
    template <class A, class B>
    static void copy(const A* __restrict from, int64_t n, B* __restrict to) {
        for (int64_t i = 0; i < n; i++) assign(to[i], value(from[i]));
    }

    void find_top(int64_t i) {
        V best = all<W>(-INFINITY);
        I best_k{};
        for (int64_t c = 0; c < classes; c++) {
            V x = load(tile + c * width + i);
            I above = x > best;
            best = above ? x : best;
            best_k = above ? I{} + Int(c) : best_k;
        }
        store(top + i, best);
        memcpy(k + i, &best_k, sizeof best_k);
    }
    // Replaces logits by exponentials; adds up those of all but the largest.
    template <bool SPREAD>
    void add(int64_t i) {
        const Units<T> in = Block::units(i);
        I largest;
        memcpy(&largest, k + i, sizeof largest);
        const V base = load(top + i);
        Sum<W> sum, spreads;
        int64_t c = 0;
        for (; c + 4 <= classes; c += 4) {
            W* p = tile + c * width + i;
            V x[4];
            for (int j = 0; j < 4; j++) x[j] = load(p + j * width);
            if constexpr (SPREAD)
                spreads.add(((base - x[0]) + (base - x[1])) + ((base - x[2]) + (base - x[3])));
            exponentiate<T>(x, in);
            for (int j = 0; j < 4; j++) store(p + j * width, x[j]);
            for (int j = 0; j < 4; j++) x[j] = largest == Int(c + j) ? V{} : x[j];
            sum.add((x[0] + x[1]) + (x[2] + x[3]));
        }
        for (; c < classes; c++) {
            W* p = tile + c * width + i;
            V x[1] = {load(p)};
            if constexpr (SPREAD) spreads.add(base - x[0]);
            exponentiate<T>(x, in);
            store(p, x[0]);
            sum.add(largest == Int(c) ? V{} : x[0]);
        }
        keep(sum, rest + i);
        if constexpr (SPREAD) keep(spreads, spread + i);
    }
    static void keep(const Sum<float>& s, double* to) {
        store(to, s.low);
        store(to + lanes<double>, s.high);
    }
    static void keep(const Sum<double>& s, double* to) {
        store(to, s.lost == s.lost ? s.sum + s.lost : s.sum);
    }

    void run(int64_t row, int64_t rows, PartialSum& sum) {
        const Call& c = problem.call;
        const int64_t n = row / c.d, d = row % c.d;
        const S* x = static_cast<const S*>(c.logits) + n * c.stride_n + d * c.stride_d;
        const int64_t stride = c.d == 1 ? c.stride_n : c.stride_d;
        const int64_t padded = (rows + L - 1) / L * L;
        const bool indexed = c.target_kind == INDICES;
        Block::read_targets(row, rows);
        for (int64_t i = rows; i < padded; i++) target[i] = IGNORED;
        gather(x, rows, stride, c.stride_v);
        for (int64_t i = 0; i < padded; i += L) find_top(i);
        if (c.mode == GRADIENT)
            for (int64_t i = 0; i < padded; i++) {
                k[i] = i < rows ? Int(c.k[row + i]) : 0;
                tail[i] = i < rows ? c.tail[row + i] : 0;
                top[i] = tile[k[i] * width + i];
            }
        for (int64_t i = 0; i < padded; i++)  // of no use where there is no target
            at_target[i] = indexed ? tile[(target[i] < 0 ? 0 : target[i]) * width + i] : 0;
        for (int64_t i = 0; i < padded; i += L) {
            if (c.flags & SMOOTH) add<true>(i);
            else add<false>(i);
        }
        Block::add_up(padded);
        if (c.gradient)
            for (int64_t i = 0; i < padded; i++)
                exp_target[i] = indexed ? tile[(target[i] < 0 ? 0 : target[i]) * width + i] : 0;
        Block::finish(row, rows, x, stride, sum);
        if (!c.gradient) return;
        for (int64_t i = rows; i < padded; i++) factor[i] = bias[i] = 0;
        scale(padded);
        for (int64_t i = 0; i < rows; i++) {
            if (target[i] == IGNORED) continue;
            tile[k[i] * width + i] = W(mended_top[i]);
            if (indexed && target[i] >= 0 && target[i] != k[i])
                tile[target[i] * width + i] = W(mended_target[i]);
        }
        S* out = static_cast<S*>(c.gradient) + n * c.gradient_n + d * c.gradient_d;
        scatter(out, rows, c.d == 1 ? c.gradient_n : c.gradient_d, c.gradient_v);
    }

    void scale(int64_t rows) {
        for (int64_t i = 0; i < rows; i += L) {
            const V f = load(factor + i), b = load(bias + i);
            for (int64_t c = 0; c < classes; c++) {
                W* p = tile + c * width + i;
                store(p, load(p) * f + b);
            }
        }
    }
};

// ---- Every other option: in double, through a scratch of one piece ------------------------------

XENT_INLINE double element(const void* p, int64_t dtype, int64_t i) {
    switch (dtype) {
        case FLOAT16: return value(static_cast<const fp16*>(p)[i]);
        case BFLOAT16: return value(static_cast<const bf16*>(p)[i]);
        case FLOAT32: return static_cast<const float*>(p)[i];
        default: return static_cast<const double*>(p)[i];
    }
}
template <class S>
void read_as(const S* p, int64_t n, int64_t stride, double* out) {
    if (stride == 1)
        for (int64_t i = 0; i < n; i++) out[i] = value(p[i]);
    else
        for (int64_t i = 0; i < n; i++) out[i] = value(p[i * stride]);
}
void read(const void* p, int64_t dtype, int64_t at, int64_t n, int64_t stride, double* out) {
    switch (dtype) {
        case FLOAT16: return read_as(static_cast<const fp16*>(p) + at, n, stride, out);
        case BFLOAT16: return read_as(static_cast<const bf16*>(p) + at, n, stride, out);
        case FLOAT32: return read_as(static_cast<const float*>(p) + at, n, stride, out);
        default: return read_as(static_cast<const double*>(p) + at, n, stride, out);
    }
}
template <class S>
void write_as(S* p, int64_t n, int64_t stride, const double* x) {
    for (int64_t i = 0; i < n; i++) assign(p[i * stride], x[i]);
}
void write(void* p, int64_t dtype, int64_t at, int64_t n, int64_t stride, const double* x) {
    switch (dtype) {
        case FLOAT16: return write_as(static_cast<fp16*>(p) + at, n, stride, x);
        case BFLOAT16: return write_as(static_cast<bf16*>(p) + at, n, stride, x);
        case FLOAT32: return write_as(static_cast<float*>(p) + at, n, stride, x);
        default: return write_as(static_cast<double*>(p) + at, n, stride, x);
    }
}

const int64_t GENERAL_PIECE = 1024;

// A product and what rounding it lost (Dekker where there is no fused multiply-add).
XENT_INLINE double product(double a, double b, double& lost) {
    double high = a * b;
#if defined(__FMA__) || defined(__aarch64__)
    lost = __builtin_fma(a, b, -high);
#else
    double big = 134217729.0 * a, ah = big - (big - a), al = a - ah;
    big = 134217729.0 * b;
    double bh = big - (big - b), bl = b - bh;
    lost = ((ah * bh - high) + ah * bl + al * bh) + al * bl;
#endif
    if (lost != lost || isinf(lost)) lost = 0;
    return high;
}

struct GeneralPiece {
    double largest = -INFINITY;  // logit, before the softcap, in which large logits become equal
    double top = -INFINITY, top_low = 0;
    double rest = 0;     // exponentials, the largest left out
    double entropy = 0;  // exponentials times (base - u)
    double weight = 0, weight_k = 0, spread = 0;  // class weights without that of k, of k; w (base - u)
    double mass = 0, mass_k = 0, miss = 0;        // the same for weighted probabilities
    double base = 0;
    int64_t k = 0;
    Unit<F64> unit;
};

struct GeneralWork {
    const Problem& problem;
    const Call& c;
    GeneralPiece* pieces;
    const int64_t count;
    double u[GENERAL_PIECE], low[GENERAL_PIECE], e[GENERAL_PIECE], w[GENERAL_PIECE],
        q[GENERAL_PIECE], slope[GENERAL_PIECE];
    int64_t n = 0, d = 0, from = 0, length = 0;
    Row found;
    double others_weight = 0, weight_k = 0, others_mass = 0, mass_k = 0, top_low = 0, whole = 1;
    Unit<F64> unit;

    GeneralWork(const Problem& p, GeneralPiece* memory)
        : problem(p), c(p.call), pieces(memory),
          count((p.call.v + GENERAL_PIECE - 1) / GENERAL_PIECE) {}

    // The transformed logits u + low of a piece, their slopes, weights and probabilities.
    double prepare(int64_t j, int64_t& k) {  // and the largest logit, at k
        from = j * GENERAL_PIECE;
        length = c.v - from < GENERAL_PIECE ? c.v - from : GENERAL_PIECE;
        int64_t at = n * c.stride_n + d * c.stride_d + from * c.stride_v;
        read(c.logits, c.dtype, at, length, c.stride_v, u);
        k = 0;
        for (int64_t i = 1; i < length; i++)
            if (u[i] > u[k] || (u[k] != u[k] && u[i] == u[i])) k = i;
        const double largest = u[k];
        for (int64_t i = 0; i < GENERAL_PIECE; i++) low[i] = 0, slope[i] = c.logit_scale;
        for (int64_t i = length; i % lanes<double>; i++) u[i] = -INFINITY;
        if (c.softcap != 0) cap();
        else if (c.logit_scale != 1)
            for (int64_t i = 0; i < length; i++) u[i] = product(u[i], c.logit_scale, low[i]);
        for (int64_t i = 0; i < length; i++) w[i] = c.weight ? c.weight[from + i] : 1;
        if (c.target_kind == PROBABILITIES) {
            at = n * c.target_n + d * c.target_d + from * c.target_v;
            read(c.target, c.target_dtype, at, length, c.target_v, q);
            for (int64_t i = 0; i < length; i++) q[i] *= w[i];
        }
        return largest;
    }
    // softcap tanh(scale x / softcap), with tanh(z) = (1 - s) / (1 + s), s = exp(-2 |z|)
    void cap() {
        const Units<F64> in{Unit<F64>()};
        const double ratio = c.logit_scale / c.softcap;
        for (int64_t i = 0; i < length; i += lanes<double>) {
            vd z = load(u + i) * ratio, size = z < 0 ? -z : z;
            vd exps[1] = {-2.0 * size};
            exponentiate<F64>(exps, in);
            const vd s = exps[0];
            vd t = c.softcap * ((1.0 - s) / (1.0 + s));
            store(u + i, z < 0 ? -t : t);
            store(slope + i, 4 * c.logit_scale * s / ((1.0 + s) * (1.0 + s)));
        }
        for (int64_t i = length; i % lanes<double>; i++) u[i] = -INFINITY;
    }
    void to_exponentials(const Unit<F64>& in_unit) {
        const Units<F64> in(in_unit);
        for (int64_t i = 0; i < length; i += lanes<double>) {
            vd x[1] = {load(u + i)}, lost[1] = {load(low + i)};
            exponentiate<F64, 1, true>(x, in, lost);
            store(e + i, x[0]);
        }
    }
    template <class F>
    XENT_INLINE double add_up(F term) {  // over a piece, in vectors
        Sum<double> sum;
        int64_t i = 0;
        for (; i + lanes<double> <= length; i += lanes<double>) {
            vd terms;
            for (int j = 0; j < lanes<double>; j++) terms[j] = term(i + j);
            sum.add(terms);
        }
        PartialSum all_of_it;
        all_of_it.add(sum.total());
        for (; i < length; i++) all_of_it.add(term(i));
        return all_of_it.total();
    }

    GeneralPiece sum_piece(int64_t j) {
        GeneralPiece p;
        p.largest = prepare(j, p.k);
        const int64_t k = p.k;
        p.top = u[k];
        p.top_low = low[k];
        p.unit = Unit<F64>(p.top);
        p.base = p.top == -INFINITY ? 0 : p.top;
        const double base = p.base, base_low = p.top_low;
        const auto below = [&](int64_t i) { return (base - u[i]) + (base_low - low[i]); };
        to_exponentials(p.unit);
        p.rest = add_up([&](int64_t i) { return i == k ? 0 : e[i]; });
        if (c.flags & ENTROPY)
            p.entropy = add_up([&](int64_t i) { return e[i] == 0 ? 0 : e[i] * below(i); });
        if (c.flags & SMOOTH) {
            p.weight = add_up([&](int64_t i) { return i == k ? 0 : w[i]; });
            p.weight_k = w[k];
            p.spread = add_up([&](int64_t i) { return times(w[i], below(i)); });
        }
        if (c.target_kind == PROBABILITIES) {
            p.mass = add_up([&](int64_t i) { return i == k ? 0 : q[i]; });
            p.mass_k = q[k];
            p.miss = add_up([&](int64_t i) { return times(q[i], below(i)); });
        }
        return p;
    }

    void combine() {
        int64_t best = 0;
        for (int64_t j = 1; j < count; j++)
            if (pieces[j].largest > pieces[best].largest) best = j;
        const GeneralPiece& first = pieces[best];
        unit = first.unit;
        top_low = first.top_low;
        whole = unit.exp_of(first.top) * (1 + top_low);
        found = Row();
        found.top = first.top;
        found.k = best * GENERAL_PIECE + first.k;
        weight_k = first.weight_k;
        mass_k = first.mass_k;
        PartialSum rest, entropy, weight, spread, mass, miss;
        for (int64_t j = 0; j < count; j++) {
            const GeneralPiece& p = pieces[j];
            const double in = p.top == -INFINITY ? 1 : p.unit.in(unit);
            const double own = p.top == -INFINITY ? 0 : p.unit.exp_of(p.top) * (1 + p.top_low);
            const double drop = (first.top - p.base) + (top_low - p.top_low);
            rest.add(j == best ? p.rest : (own + p.rest) * in);
            entropy.add((p.entropy + times(own + p.rest, drop)) * in);
            weight.add(j == best ? p.weight : p.weight + p.weight_k);
            mass.add(j == best ? p.mass : p.mass + p.mass_k);
            spread.add(p.spread + times(p.weight + p.weight_k, drop));
            miss.add(p.miss + times(p.mass + p.mass_k, drop));
        }
        others_weight = weight.total();
        others_mass = mass.total();
        found.tail = rest.total() / whole + (first.top - first.top);
        found.log_sum = log1p(found.tail);
        found.entropy = found.log_sum + entropy.total() / (whole * (1 + found.tail));
        found.spread =
            ((others_weight + weight_k) * found.log_sum + spread.total()) / double(c.v);
        found.miss = (others_mass + mass_k) * found.log_sum + miss.total();
    }

    double whole_row(int64_t row) {
        n = row / c.d;
        d = row % c.d;
        const int64_t t = problem.target(row);
        Slopes s;
        if (t == IGNORED) {
            if (c.gradient) write_zeros();
            return problem.finish(row, t, Row(), s);
        }
        for (int64_t j = 0; j < count; j++) pieces[j] = sum_piece(j);
        combine();
        if (c.target_kind == INDICES && t >= 0) {
            double high, below = 0;
            at(t, high, below);
            found.miss = (found.top - high) + (top_low - below);
        }
        if (found.tail != found.tail) find_nan();
        const double loss = problem.finish(row, t, found, s);
        if (c.gradient) {
            if (c.target_kind == PROBABILITIES) s.of_p += s.nll * (others_mass + mass_k);
            for (int64_t j = 0; j < count; j++) write_piece(j, t, s);
        }
        return loss;
    }
    void at(int64_t t, double& high, double& below) {
        const int64_t j = t / GENERAL_PIECE;
        if (count > 1 || from != j * GENERAL_PIECE) {
            int64_t k;
            prepare(j, k);
        }
        high = u[t - from];
        below = low[t - from];
    }
    void find_nan() {
        const int64_t start = n * c.stride_n + d * c.stride_d;
        for (int64_t i = 0; i < c.v; i++) {
            const double x = element(c.logits, c.dtype, start + i * c.stride_v);
            if (x != x) {
                found.k = i;
                found.top = x;
                return;
            }
        }
    }
    void write_zeros() {
        memset(e, 0, sizeof e);
        for (int64_t j = 0; j < c.v; j += GENERAL_PIECE) {
            const int64_t most = c.v - j < GENERAL_PIECE ? c.v - j : GENERAL_PIECE;
            write(c.gradient, c.dtype, n * c.gradient_n + d * c.gradient_d + j * c.gradient_v, most,
                  c.gradient_v, e);
        }
    }

    void write_piece(int64_t j, int64_t t, const Slopes& s) {
        int64_t unused;
        prepare(j, unused);
        to_exponentials(unit);
        const double share = 1 / (whole * (1 + found.tail));
        const bool soft = c.target_kind == PROBABILITIES, indexed = c.target_kind == INDICES;
        for (int64_t i = 0; i < length; i++) {
            const double p = e[i] * share;
            double g = s.of_p * p;
            if (s.of_class != 0) g -= s.of_class * w[i];
            if (soft) g -= s.nll * q[i];
            if (s.entropy != 0 && p != 0)
                g += s.entropy * p * (surprisal(i) - found.entropy);
            e[i] = g;
        }
        if (indexed && t >= from && t < from + length) {
            const int64_t i = t - from;
            const double p = unit.exp_of(u[i]) * (1 + low[i]) * share;
            double g = s.at_target * (p - 1) + s.lse * p;
            if (s.of_class != 0)
                g += s.of_class * ((others_weight + weight_k) * p - w[i]);
            if (s.entropy != 0 && p != 0)
                g += s.entropy * p * (surprisal(i) - found.entropy);
            e[i] = g;
        }
        if (found.k >= from && found.k < from + length) e[found.k - from] = at_top(t, s);
        for (int64_t i = 0; i < length; i++) e[i] *= slope[i];
        write(c.gradient, c.dtype,
              n * c.gradient_n + d * c.gradient_d + from * c.gradient_v, length, c.gradient_v, e);
    }
    XENT_INLINE double surprisal(int64_t i) const {
        return found.log_sum + ((found.top - u[i]) + (top_low - low[i]));
    }
    double at_top(int64_t t, const Slopes& s) const {
        if (found.tail != found.tail) return NAN;
        const double p = 1 / (1 + found.tail), others = found.tail / (1 + found.tail);
        double g = s.lse * p;
        if (c.target_kind == INDICES) g += s.at_target * (t == found.k ? -others : p);
        if (c.target_kind == PROBABILITIES) g += s.nll * excess(p, others, others_mass, mass_k);
        if (s.of_class != 0) g += s.of_class * excess(p, others, others_weight, weight_k);
        if (s.entropy != 0) g += s.entropy * p * (found.log_sum - found.entropy);
        return g;
    }
    static double excess(double p, double others, double rest, double own) {
        return others < 0.5 ? rest - (rest + own) * others : (rest + own) * p - own;
    }
};

// ---- All rows, on the caller's threads ----------------------------------------------------------

// Results below the smallest normal number are flushed to 0 inside, where the CPU would take a
// hundred times as long for each; what the caller had set is set again.
struct Flush {
#if defined(__x86_64__)
    unsigned before;
    Flush() : before(_mm_getcsr()) { _mm_setcsr(before | 0x8000); }
    ~Flush() { _mm_setcsr(before); }
#endif
};

const int64_t FEW_CLASSES = 64, MOST_TILE_CLASSES = 16384;
const int64_t ALONE = 65536;  // elements below which one thread is faster than two
const int64_t TILE_COST = 4;  // of an element, in those of a row

struct Job {
    const Problem& problem;
    PartialSum* sums;
    int64_t rows, rows_per_sum;
    bool failed = false;
};

// A piece of memory of this call: on the stack where small.
template <class T>
struct Memory {
    T* start;
    explicit Memory(int64_t count)
        : start(static_cast<T*>(aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64))) {}
    ~Memory() { free(start); }
    Memory(const Memory&) = delete;
};

template <class K>
void row_range(int64_t begin, int64_t end, void* given) {
    Job& job = *static_cast<Job*>(given);
    const Call& c = job.problem.call;
    Memory<Piece<K>> pieces((c.v + PIECE<K> - 1) / PIECE<K>);
    if (!pieces.start) {
        job.failed = true;
        return;
    }
    Flush flush;
    RowWork<K> work(job.problem, pieces.start);
    for (int64_t b = begin; b < end; b++) {
        const int64_t stop = (b + 1) * job.rows_per_sum;
        for (int64_t row = b * job.rows_per_sum; row < stop && row < job.rows; row++)
            job.sums[b].add(work.whole_row(row));
    }
}

template <class Work>
void line_range(int64_t begin, int64_t end, void* given) {
    Job& job = *static_cast<Job*>(given);
    Flush flush;
    Work work(job.problem);
    const int64_t d = job.problem.call.d;
    for (int64_t b = begin; b < end; b++) {
        int64_t row = b * job.rows_per_sum, stop = row + job.rows_per_sum;
        if (stop > job.rows) stop = job.rows;
        while (row < stop) {
            int64_t rows = stop - row < LINES ? stop - row : LINES;
            if (d > 1 && d - row % d < rows) rows = d - row % d;
            work.run(row, rows, job.sums[b]);
            row += rows;
        }
    }
}

template <class K>
void tile_range(int64_t begin, int64_t end, void* given) {
    Job& job = *static_cast<Job*>(given);
    const Call& c = job.problem.call;
    typedef typename K::Work W;
    const int64_t width = tile_rows<W>(c.v);
    Memory<W> tile(c.v * width);
    if (!tile.start) {
        job.failed = true;
        return;
    }
    Flush flush;
    TileWork<K> work(job.problem, tile.start);
    for (int64_t b = begin; b < end; b++) {
        int64_t row = b * job.rows_per_sum, stop = row + job.rows_per_sum;
        if (stop > job.rows) stop = job.rows;
        while (row < stop) {
            int64_t rows = stop - row < width ? stop - row : width;
            if (c.d > 1 && c.d - row % c.d < rows) rows = c.d - row % c.d;
            work.run(row, rows, job.sums[b]);
            row += rows;
        }
    }
}

void general_range(int64_t begin, int64_t end, void* given) {
    Job& job = *static_cast<Job*>(given);
    Memory<GeneralPiece> pieces((job.problem.call.v + GENERAL_PIECE - 1) / GENERAL_PIECE);
    if (!pieces.start) {
        job.failed = true;
        return;
    }
    Flush flush;
    GeneralWork work(job.problem, pieces.start);
    for (int64_t b = begin; b < end; b++) {
        const int64_t stop = (b + 1) * job.rows_per_sum;
        for (int64_t row = b * job.rows_per_sum; row < stop && row < job.rows; row++)
            job.sums[b].add(work.whole_row(row));
    }
}

// Few rows of very many classes: each row's pieces are shared out.
template <class K>
struct SharedRow {
    RowWork<K>* work;
    static void sum(int64_t begin, int64_t end, void* given) {
        Flush flush;
        static_cast<SharedRow*>(given)->work->sum(begin, end);
    }
    static void write(int64_t begin, int64_t end, void* given) {
        Flush flush;
        static_cast<SharedRow*>(given)->work->write(begin, end);
    }
};

template <class K>
void shared_rows(Job& job) {
    const Call& c = job.problem.call;
    Memory<Piece<K>> pieces((c.v + PIECE<K> - 1) / PIECE<K>);
    if (!pieces.start) {
        job.failed = true;
        return;
    }
    RowWork<K> work(job.problem, pieces.start);
    SharedRow<K> shared{&work};
    for (int64_t row = 0; row < job.rows; row++) {
        if (job.problem.target(row) == IGNORED) {
            job.sums[row / job.rows_per_sum].add(work.whole_row(row));
            continue;
        }
        work.begin(row);
        if (c.mode != GRADIENT) c.parallel(0, work.count, 4, SharedRow<K>::sum, &shared);
        job.sums[row / job.rows_per_sum].add(work.finish());
        if (work.out) {
            c.parallel(0, work.count, 4, SharedRow<K>::write, &shared);
            work.mend();
        }
    }
}

typedef void (*Range)(int64_t, int64_t, void*);

void share_out(Job& job, Range range, int64_t cost) {
    const Call& c = job.problem.call;
    const int64_t blocks = (job.rows + job.rows_per_sum - 1) / job.rows_per_sum;
    if (!c.parallel || blocks == 1 || job.rows * c.v * cost < ALONE) range(0, blocks, &job);
    else c.parallel(0, blocks, 1, range, &job);
}

template <class K>
void all_rows(Job& job) {
    const Call& c = job.problem.call;
    if (c.flags & MEASURES) return share_out(job, line_range<MeasureWork<K>>, 1);
    const bool side_by_side = c.stride_v == 1 && (!c.gradient || c.gradient_v == 1);
    if (!side_by_side || c.v <= FEW_CLASSES) return share_out(job, tile_range<K>, TILE_COST);
    if (c.parallel && job.rows < 4 && c.v >= ALONE) return shared_rows<K>(job);
    if (c.v <= PIECE<K> / 4 * 3) return share_out(job, line_range<LineWork<K>>, 1);
    share_out(job, row_range<K>, 1);
}

// Whether an option needs the general way.
bool is_general(const Call& c) {
    if (c.flags & MEASURES) return false;
    if (c.target_kind == PROBABILITIES || c.flags & ENTROPY || c.by_entropy) return true;
    if (c.softcap != 0 || c.logit_scale != 1 || (c.flags & SMOOTH && c.weight)) return true;
    return c.stride_v != 1 && c.v > MOST_TILE_CLASSES;
}

int64_t first_bad_target(const Call& c) {
    const int64_t* target = static_cast<const int64_t*>(c.target);
    const int64_t rows = c.n * c.d;
    bool bad = false;
    for (int64_t i = 0; i < rows; i++)
        bad |= (uint64_t(target[i]) >= uint64_t(c.v)) & (target[i] != c.ignore_index);
    for (int64_t i = 0; bad && i < rows; i++)
        if (uint64_t(target[i]) >= uint64_t(c.v) && target[i] != c.ignore_index) return i;
    return -1;
}

double sum_of_row_weights(const Problem& p) {
    const Call& c = p.call;
    const int64_t rows = c.n * c.d;
    if (c.target_kind != INDICES) return double(rows);
    const int64_t* target = static_cast<const int64_t*>(c.target);
    if (!c.weight) {
        int64_t kept = 0;
        for (int64_t i = 0; i < rows; i++)
            kept += (uint64_t(target[i]) < uint64_t(c.v)) & (target[i] != c.ignore_index);
        return double(kept);
    }
    PartialSum sum;
    for (int64_t i = 0; i < rows; i++) sum.add(p.row_weight(p.target(i)));
    return sum.total();
}

}  // namespace

// -1 where all went well, -2 where memory ran out, or the first row whose target is out of range.
XENT_EXPORT int64_t XENT_NAME(xent_rows)(const Call* call) {
    const Call& c = *call;
    if (c.target_kind == INDICES && c.flags & CHECK) {
        int64_t bad = first_bad_target(c);
        if (bad >= 0) return bad;
    }
    Problem problem{c};
    problem.classes_weight = double(c.v);
    if (c.weight && c.flags & SMOOTH) {
        PartialSum sum;
        for (int64_t i = 0; i < c.v; i++) sum.add(c.weight[i]);
        problem.classes_weight = sum.total();
    }
    double divisor = c.denominator == ROW_WEIGHT ? sum_of_row_weights(problem) : c.divisor;
    problem.scale = c.denominator == NOTHING ? c.upstream : c.upstream / divisor;

    const int64_t rows = c.n * c.d;
    int64_t rows_per_sum = 16384 / (c.v < 64 ? 64 : c.v);  // by V alone, for the sake of the bits
    if (rows_per_sum < 1) rows_per_sum = 1;
    const int64_t blocks = (rows + rows_per_sum - 1) / rows_per_sum;
    PartialSum few[16];
    Memory<PartialSum> many(blocks > 16 ? blocks : 1);
    if (!many.start) return -2;
    PartialSum* sums = blocks > 16 ? many.start : few;
    for (int64_t b = 0; b < blocks; b++) sums[b] = PartialSum();
    Job job{problem, sums, rows, rows_per_sum};
    // Whether results of half-precision logits are wider than these.
    const bool wide = c.mode == STATISTICS || (c.mode == LOSS && c.loss_dtype != c.dtype);
    if (is_general(c)) {
        share_out(job, general_range, TILE_COST);
    } else {
        switch (c.dtype) {
            case FLOAT16:
                if (wide) all_rows<FP16<6>>(job);
                else all_rows<FP16<5>>(job);
                break;
            case BFLOAT16:
                if (wide) all_rows<BF16<6>>(job);
                else all_rows<BF16<4>>(job);
                break;
            case FLOAT32:
                if (c.flags & ACCURATE) all_rows<F32Accurate>(job);
                else all_rows<F32>(job);
                break;
            default: all_rows<F64>(job);
        }
    }
    if (job.failed) return -2;
    if (c.loss) {
        PartialSum total;
        for (int64_t b = 0; b < blocks; b++) {
            total.add(sums[b].high);
            total.add(sums[b].low);
        }
        double loss = total.total();
        problem.write_loss(c.loss, 0, c.denominator == NOTHING ? loss : loss / divisor);
    }
    return -1;
}

// What differs between two calls of a loss on arrays of the same shapes and options.
struct Variables {
    const void *logits, *target;
    const double* weight;
    void *gradient, *loss;
    double upstream;
};

// The same with these in place of those of the call; the loss is of each row where `losses` is set.
XENT_EXPORT int64_t XENT_NAME(xent_loss)(const Variables* given, const Call* call) {
    Call c = *call;
    c.logits = given->logits;
    c.target = given->target;
    c.weight = given->weight;
    c.gradient = given->gradient;
    (call->losses ? c.losses : c.loss) = given->loss;
    c.upstream = given->upstream;
    return XENT_NAME(xent_rows)(&c);
}

#define XENT_ONCE_baseline 1
#if XENT_JOIN(XENT_ONCE, XENT_TARGET)  // what the library has once, whatever its instruction sets

// Which instruction sets run here: 1 for v3, 2 for v4.
XENT_EXPORT int xent_supported(void) {
    int found = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("x86-64-v3")) found |= 1;
    if (__builtin_cpu_supports("x86-64-v4")) found |= 2;
#endif
    return found;
}

// Ask for huge pages for memory that nothing has touched: a page fault for each 4 KiB of a fresh
// gradient takes several times as long as computing it.
XENT_EXPORT void xent_huge_pages(void* start, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    const uintptr_t huge = uintptr_t(1) << 21;
    uintptr_t first = (reinterpret_cast<uintptr_t>(start) + huge - 1) / huge * huge;
    uintptr_t end = (reinterpret_cast<uintptr_t>(start) + uintptr_t(bytes)) / huge * huge;
    if (end > first) madvise(reinterpret_cast<void*>(first), end - first, MADV_HUGEPAGE);
#else
    (void)start;
    (void)bytes;
#endif
}

// ---- Threads where the caller has none, under NumPy ---------------------------------------------

namespace {

struct Pool {
    pthread_mutex_t busy = PTHREAD_MUTEX_INITIALIZER;  // one call at a time; others run alone
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    pthread_cond_t given = PTHREAD_COND_INITIALIZER, done = PTHREAD_COND_INITIALIZER;
    int threads = 1, started = 1;  // the caller is one of them
    uint64_t call = 0;             // counts the calls
    int left = 0;
    Range function = nullptr;
    void* context = nullptr;
    int64_t begin = 0, end = 0;
};
Pool pool;

void share(int of, int threads) {
    const int64_t count = pool.end - pool.begin;
    const int64_t from = pool.begin + count * of / threads;
    const int64_t to = pool.begin + count * (of + 1) / threads;
    if (from < to) pool.function(from, to, pool.context);
}

void* worker(void* given) {
    const int of = int(reinterpret_cast<intptr_t>(given));
    uint64_t seen = 0;
    pthread_mutex_lock(&pool.lock);
    for (;;) {
        while (pool.call == seen) pthread_cond_wait(&pool.given, &pool.lock);
        seen = pool.call;
        const int threads = pool.threads;
        if (of >= threads) continue;  // the pool was larger once
        pthread_mutex_unlock(&pool.lock);
        share(of, threads);
        pthread_mutex_lock(&pool.lock);
        if (--pool.left == 0) pthread_cond_signal(&pool.done);
    }
    return nullptr;
}

void forked() { pool = Pool(); }  // a child process has none of its parent's threads

}  // namespace

// As torch_parallel_for, on threads of this library's own.
XENT_EXPORT int32_t xent_parallel_for(int64_t begin, int64_t end, int64_t grain, Range function,
                                      void* context) {
    if (pool.threads < 2 || end - begin <= grain || pthread_mutex_trylock(&pool.busy)) {
        function(begin, end, context);
        return 0;
    }
    pthread_mutex_lock(&pool.lock);
    static bool told_of_forks = false;
    if (!told_of_forks) told_of_forks = !pthread_atfork(nullptr, nullptr, forked);
    while (pool.started < pool.threads) {
        pthread_t thread;
        void* of = reinterpret_cast<void*>(intptr_t(pool.started));
        if (pthread_create(&thread, nullptr, worker, of)) {
            pool.threads = pool.started;  // no more are to be had
            break;
        }
        pthread_detach(thread);
        pool.started++;
    }
    const int threads = pool.threads;
    pool.function = function;
    pool.context = context;
    pool.begin = begin;
    pool.end = end;
    pool.left = threads - 1;
    pool.call++;
    pthread_cond_broadcast(&pool.given);
    pthread_mutex_unlock(&pool.lock);
    share(0, threads);
    pthread_mutex_lock(&pool.lock);
    while (pool.left) pthread_cond_wait(&pool.done, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.busy);
    return 0;
}

// How many threads `xent_parallel_for` uses.
XENT_EXPORT void xent_set_threads(int threads) {
    pthread_mutex_lock(&pool.busy);
    pthread_mutex_lock(&pool.lock);
    pool.threads = threads < 1 ? 1 : threads;
    pthread_mutex_unlock(&pool.lock);
    pthread_mutex_unlock(&pool.busy);
}

#endif
