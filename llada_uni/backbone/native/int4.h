// One expert's matrix in int4, as quantized_formats.py stores it, times a few rows of inputs.
//
// A tile holds 64 features out. Byte r of column c of a tile has feature r below and feature r + 32 above; a group of columns
// has a scale and a zero point per feature, weight = (value - 8) * scale + zero. So a group adds
// scale * sum(value - 8) * x + zero * sum(x). Features out lie in the lanes, and no sum over lanes is needed.
// Axes: O features out, C features in, G columns of a group.
#pragma once
#include "vectors.h"

namespace {

constexpr int64_t TILE64 = 64;

struct Int4 {
#if PAIRS
    using X = bfloat16;
    static constexpr int MOST = 4;  // rows at once: 4 x 4 sums of 16 lanes
#else
    using X = float;
    static constexpr int MOST = LANES == 8 ? 2 : 4;
#endif
    static constexpr int64_t CHUNK = TILE64, LEAST = TILE64;

    const uint8_t* data;    // [E, tiles, C, 32]
    const bfloat16* scale;  // [E, C / G, tiles * 64, 2]
    int64_t outputs, inputs, group;

    int64_t tiles() const { return (outputs + TILE64 - 1) / TILE64; }

    void multiply(int64_t expert, int64_t first, int64_t last, const X* const* x, int rows, float* out, int64_t step) const {
        for (int64_t o = first; o < last; o += TILE64)
            for (int begin = 0; begin < rows; begin += MOST) {
                const int64_t wide = last - o < TILE64 ? last - o : TILE64;
                float* target = out + begin * step + o - first;
                switch (rows - begin < MOST ? rows - begin : MOST) {
                    case 1: tile<1>(expert, o / TILE64, x + begin, target, step, wide); break;
                    case 2: tile<2>(expert, o / TILE64, x + begin, target, step, wide); break;
                    case 3: tile<MOST < 3 ? MOST : 3>(expert, o / TILE64, x + begin, target, step, wide); break;
                    default: tile<MOST>(expert, o / TILE64, x + begin, target, step, wide);
                }
            }
    }

    // 64 features out of R rows.
    template <int R>
    void tile(int64_t expert, int64_t number, const X* const* x, float* out, int64_t step, int64_t wide) const {
        const uint8_t* bytes = data + (expert * tiles() + number) * inputs * 32;
        const int64_t groups = inputs / group, padded = tiles() * TILE64;
        float sums[R][TILE64] = {};
        for (int64_t g = 0; g < groups; g++) {
            const bfloat16* pairs = scale + ((expert * groups + g) * padded + number * TILE64) * 2;
            const X* part[R];
            float total[R];
            for (int r = 0; r < R; r++) {
                part[r] = x[r] + g * group;
                vec lanes = {};
                for (int64_t c = 0; c < group; c += LANES) lanes += load(part[r] + c);
                float four[4];
                sums_of(lanes, lanes, lanes, lanes, four);
                total[r] = four[0];
            }
            add_group<R>(bytes + g * group * 32, part, pairs, total, sums);
        }
        for (int r = 0; r < R; r++) std::memcpy(out + r * step, sums[r], wide * sizeof(float));
    }

    static vec scales(const bfloat16* pairs) {  // LANES of them, zero points left out
        const uvec both = copy<uvec>(pairs);
        const uvec low = both << 16;
        return copy<vec>(&low);
    }

    static vec zeros(const bfloat16* pairs) {
        const uvec high = copy<uvec>(pairs) & 0xffff0000u;
        return copy<vec>(&high);
    }

    // scale * dot + zero * total, for LANES features out from `o` on.
    static void finish(float* sums, const bfloat16* pairs, vec dot, float total, float offset) {
        const vec factor = scales(pairs), zero = zeros(pairs);
        const vec sum = load(sums) + (factor * dot + (zero - factor * offset) * total);
        std::memcpy(sums, &sum, sizeof sum);
    }

    // The weights of one expert that the values stand for, transposed: columns first..last-1 of out [C, O].
    template <typename Out>
    void plain(int64_t expert, int64_t first, int64_t last, Out* out) const {
        const int64_t groups = inputs / group, padded = tiles() * TILE64;
        for (int64_t t = 0; t < tiles(); t++) {
            const int64_t wide = outputs - t * TILE64 < TILE64 ? outputs - t * TILE64 : TILE64;
            for (int64_t c = first; c < last; c++) {
                const uint8_t* bytes = data + ((expert * tiles() + t) * inputs + c) * 32;
                const bfloat16* pairs = scale + ((expert * groups + c / group) * padded + t * TILE64) * 2;
                float column[TILE64];
                for (int r = 0; r < 32; r += LANES) {
                    const ivec both = wide_bytes(bytes + r);
                    weigh(column + r, both & 15, pairs + 2 * r);
                    weigh(column + r + 32, both >> 4, pairs + 2 * (r + 32));
                }
                Out* target = out + c * outputs + t * TILE64;
                for (int64_t r = 0; r < wide; r++) put(target + r, column[r]);
            }
        }
    }

    static ivec wide_bytes(const uint8_t* p) { return wide(p); }
    static void weigh(float* out, ivec values, const bfloat16* pairs) {
        const vec weight = __builtin_convertvector(values - 8, vec) * scales(pairs) + zeros(pairs);
        std::memcpy(out, &weight, sizeof weight);
    }

#if PAIRS
    // A table turns a value into the bfloat16 of value - 8; it has every entry twice, so that the upper nibble does not matter.
    template <int R>
    void add_group(const uint8_t* bytes, const X* const* x, const bfloat16* pairs, const float* total, float (*sums)[TILE64]) const {
        uint16_t entries[32];
        for (int i = 0; i < 32; i++) entries[i] = narrow(float(i % 16 - 8)).bits;
        const __m512i table = copy<__m512i>(entries);
        __m512 dots[R][4];
        for (int r = 0; r < R; r++)
            for (int q = 0; q < 4; q++) dots[r][q] = _mm512_setzero_ps();
        for (int64_t c = 0; c < group; c += 2) {
            const __m256i even = copy<__m256i>(bytes + c * 32), odd = copy<__m256i>(bytes + c * 32 + 32);
            __builtin_prefetch(bytes + c * 32 + 4096, 0, 2);
            // Columns c and c + 1 of a feature side by side: features 0-7 and 16-23, then 8-15 and 24-31.
            const __m512i one = _mm512_cvtepu8_epi16(_mm256_unpacklo_epi8(even, odd));
            const __m512i two = _mm512_cvtepu8_epi16(_mm256_unpackhi_epi8(even, odd));
            const __m512bh weights[4] = {
                __m512bh(_mm512_permutexvar_epi16(one, table)), __m512bh(_mm512_permutexvar_epi16(two, table)),
                __m512bh(_mm512_permutexvar_epi16(_mm512_srli_epi16(one, 4), table)),
                __m512bh(_mm512_permutexvar_epi16(_mm512_srli_epi16(two, 4), table))};
            for (int r = 0; r < R; r++) {
                const __m512bh input = __m512bh(_mm512_set1_epi32(copy<int32_t>(x[r] + c)));
                for (int q = 0; q < 4; q++) dots[r][q] = _mm512_dpbf16_ps(dots[r][q], weights[q], input);
            }
        }
        for (int r = 0; r < R; r++)
            for (int q = 0; q < 4; q += 2) {
                const vec low = lower_halves(vec(dots[r][q]), vec(dots[r][q + 1]));
                const vec high = upper_halves(vec(dots[r][q]), vec(dots[r][q + 1]));
                finish(sums[r] + 16 * q, pairs + 32 * q, low, total[r], 0.0f);
                finish(sums[r] + 16 * q + 16, pairs + 32 * q + 32, high, total[r], 0.0f);
            }
    }
#else
    // 2 * LANES bytes of each column at once, which are 4 * LANES features out.
    template <int R>
    void add_group(const uint8_t* bytes, const X* const* x, const bfloat16* pairs, const float* total, float (*sums)[TILE64]) const {
        for (int at = 0; at < 32; at += 2 * LANES) {
            vec dots[R][4] = {};
            for (int64_t c = 0; c < group; c++) {
                const ivec first = wide(bytes + c * 32 + at), second = wide(bytes + c * 32 + at + LANES);
                const vec weights[4] = {__builtin_convertvector(first & 15, vec), __builtin_convertvector(second & 15, vec),
                                        __builtin_convertvector(first >> 4, vec), __builtin_convertvector(second >> 4, vec)};
                for (int r = 0; r < R; r++)
                    for (int q = 0; q < 4; q++) dots[r][q] += weights[q] * x[r][c];
            }
            for (int r = 0; r < R; r++)
                for (int q = 0; q < 4; q++) {
                    const int o = at + (q & 1) * LANES + (q >> 1) * 32;
                    finish(sums[r] + o, pairs + 2 * o, dots[r][q], total[r], 8.0f);
                }
        }
    }
#endif
};

}  // namespace
