// Vectors of the processor this is compiled for: loading, widening, adding up, exp. GCC's and clang's vector types, no library.
//
// A vector has LANES float32 values: 16 with AVX-512, 8 with AVX, 4 elsewhere (SSE, NEON). Numbers of one byte and bfloat16
// are widened as they are loaded. Where the processor multiplies pairs of bfloat16 itself, PAIRS is 1.
#pragma once
#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__) && defined(__AVX512BF16__)
#define PAIRS 1
#else
#define PAIRS 0
#endif

namespace {

#if defined(__AVX512F__)
constexpr int LANES = 16, TILE_ROWS = 6;  // 32 registers: 6 x 4 sums, 4 weights, 1 input
#elif defined(__AVX__)
constexpr int LANES = 8, TILE_ROWS = 2;  // 16 registers: 2 x 4 sums, 4 weights, 1 input
#else
constexpr int LANES = 4, TILE_ROWS = 4;
#endif
constexpr int TILE_OUT = 4;  // features out of one tile

// One load instead of one a product: compilers fold it into every multiplication, and loads are then what limits.
#if defined(__x86_64__)
#define KEEP(value) asm("" : "+v"(value))
#else
#define KEEP(value)
#endif

typedef float vec __attribute__((vector_size(LANES * 4)));
typedef float four __attribute__((vector_size(16)));
typedef int32_t ivec __attribute__((vector_size(LANES * 4)));
typedef uint32_t uvec __attribute__((vector_size(LANES * 4)));

struct bfloat16 {  // the upper half of a float32
    uint16_t bits;
};

inline float widen(bfloat16 x) {
    const uint32_t wide = uint32_t(x.bits) << 16;
    float value;
    std::memcpy(&value, &wide, sizeof value);
    return value;
}

inline bfloat16 narrow(float x) {  // to the nearest, of two equally near to the even one
    uint32_t wide;
    std::memcpy(&wide, &x, sizeof wide);
    if ((wide & 0x7fffffff) > 0x7f800000) return {uint16_t((wide >> 16) | 0x40)};  // not a number
    return {uint16_t((wide + 0x7fff + ((wide >> 16) & 1)) >> 16)};
}

inline void put(float* target, float value) { *target = value; }
inline void put(bfloat16* target, float value) { *target = narrow(value); }

template <typename V, typename T>
inline V copy(const T* p) {
    V v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

inline vec load(const float* p) { return copy<vec>(p); }

// Whole numbers of one or two bytes to four. By name on AVX: GCC makes one number after another of a conversion of vectors.
#if defined(__AVX512F__)
inline ivec wide(const int8_t* p) { return ivec(_mm512_cvtepi8_epi32(copy<__m128i>(p))); }
inline ivec wide(const uint8_t* p) { return ivec(_mm512_cvtepu8_epi32(copy<__m128i>(p))); }
inline ivec wide(const uint16_t* p) { return ivec(_mm512_cvtepu16_epi32(copy<__m256i>(p))); }
#elif defined(__AVX2__)
inline ivec wide(const int8_t* p) { return ivec(_mm256_cvtepi8_epi32(_mm_cvtsi64_si128(copy<int64_t>(p)))); }
inline ivec wide(const uint8_t* p) { return ivec(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(copy<int64_t>(p)))); }
inline ivec wide(const uint16_t* p) { return ivec(_mm256_cvtepu16_epi32(copy<__m128i>(p))); }
#else
template <typename T>
inline ivec wide(const T* p) {
    typedef T some __attribute__((vector_size(LANES * sizeof(T))));
    return __builtin_convertvector(copy<some>(p), ivec);
}
#endif

inline vec load(const bfloat16* p) {
    const ivec shifted = wide(&p->bits) << 16;
    return copy<vec>(&shifted);
}

inline vec load(const int8_t* p) { return __builtin_convertvector(wide(p), vec); }

template <typename W>
inline vec load_some(const W* p, int64_t n) {  // the last n < LANES values, then zeros
    W part[LANES] = {};
    std::memcpy(part, p, n * sizeof(W));
    return load(part);
}

#if defined(__clang__) || __GNUC__ >= 12
#define MIX __builtin_shufflevector
#endif

#if defined(__AVX512F__)  // halves of two vectors side by side
#if defined(MIX)
inline vec lower_halves(vec a, vec b) { return MIX(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23); }
inline vec upper_halves(vec a, vec b) { return MIX(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31); }
#else
inline vec lower_halves(vec a, vec b) {
    for (int i = LANES / 2; i < LANES; i++) a[i] = b[i - LANES / 2];
    return a;
}
inline vec upper_halves(vec a, vec b) {
    for (int i = 0; i < LANES / 2; i++) b[i] = a[i + LANES / 2];
    return b;
}
#endif
#endif

// Sums over the lanes of four vectors. Always the same tree: the upper half is added to the lower one, again and again.
inline void sums_of(vec a, vec b, vec c, vec d, float* out) {
#if !defined(MIX)
    const vec given[4] = {a, b, c, d};
    for (int k = 0; k < 4; k++) {
        float lane[LANES];
        std::memcpy(lane, &given[k], sizeof lane);
        for (int half = LANES / 2; half; half /= 2)
            for (int i = 0; i < half; i++) lane[i] += lane[i + half];
        out[k] = lane[0];
    }
#elif defined(__AVX512F__)
    // In half vectors from the first step on: they cost half as much.
    typedef float half __attribute__((vector_size(LANES * 2)));
    const auto folded = [](vec x) {
        half parts[2];
        std::memcpy(parts, &x, sizeof parts);
        return parts[0] + parts[1];
    };
    const half e = folded(a), f = folded(b), g = folded(c), h = folded(d);
    const half ef = MIX(e, f, 0, 1, 2, 3, 8, 9, 10, 11) + MIX(e, f, 4, 5, 6, 7, 12, 13, 14, 15);
    const half gh = MIX(g, h, 0, 1, 2, 3, 8, 9, 10, 11) + MIX(g, h, 4, 5, 6, 7, 12, 13, 14, 15);
    half all = MIX(ef, gh, 0, 1, 8, 9, 4, 5, 12, 13) + MIX(ef, gh, 2, 3, 10, 11, 6, 7, 14, 15);
    all += MIX(all, all, 1, 0, 3, 2, 5, 4, 7, 6);
    const four sums = MIX(all, all, 0, 4, 2, 6);
    std::memcpy(out, &sums, sizeof sums);
#elif defined(__AVX__)
    const vec ab = MIX(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + MIX(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    const vec cd = MIX(c, d, 0, 1, 2, 3, 8, 9, 10, 11) + MIX(c, d, 4, 5, 6, 7, 12, 13, 14, 15);
    vec all = MIX(ab, cd, 0, 1, 4, 5, 8, 9, 12, 13) + MIX(ab, cd, 2, 3, 6, 7, 10, 11, 14, 15);
    all += MIX(all, all, 1, 0, 3, 2, 5, 4, 7, 6);
    const four sums = MIX(all, all, 0, 2, 4, 6);
    std::memcpy(out, &sums, sizeof sums);
#else
    const vec ab = MIX(a, b, 0, 1, 4, 5) + MIX(a, b, 2, 3, 6, 7);
    const vec cd = MIX(c, d, 0, 1, 4, 5) + MIX(c, d, 2, 3, 6, 7);
    const vec all = MIX(ab, cd, 0, 2, 4, 6) + MIX(ab, cd, 1, 3, 5, 7);
    std::memcpy(out, &all, sizeof all);
#endif
}

// exp to within two units of the last place: x = n ln 2 + r, a polynomial for exp(r), n into the exponent.
inline vec exp_of(vec x) {
    x = x < -87.0f ? x * 0 - 87.0f : x;
    x = x > 88.0f ? x * 0 + 88.0f : x;
    const vec whole = (x * 1.44269504f + 12582912.0f) - 12582912.0f;
    const vec r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    vec p = r * (1 / 5040.0f) + 1 / 720.0f;
    p = p * r + 1 / 120.0f;
    p = p * r + 1 / 24.0f;
    p = p * r + 1 / 6.0f;
    p = p * r + 0.5f;
    p = p * r * r + r + 1.0f;
    const ivec power = (__builtin_convertvector(whole, ivec) + 127) << 23;
    return p * copy<vec>(&power);
}

inline vec silu(vec x) { return x / (exp_of(-x) + 1.0f); }

}  // namespace
