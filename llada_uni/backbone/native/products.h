// One expert's matrix [O, C], stored row by row, times a few rows of inputs: float32, bfloat16, int8 with a scale a row.
//
// Every sum is made of LANES partial sums over c in steps, then a fixed tree over the lanes: a row's result does not depend
// on how many rows stand beside it, bit for bit. Tiles of TILE_ROWS x TILE_OUT sums stay in registers, so that the weights
// are read from memory once for all rows.
// Axes: O features out, C features in.
#pragma once
#include "vectors.h"

namespace {

// What a stored number and an input are, and how a step of the sum reads and multiplies them.
template <typename Stored>
struct Widened {  // to float32, inputs float32
    using W = Stored;
    using X = float;
    using Loaded = vec;
    static constexpr int STEP = LANES;
    static Loaded read(const W* p) { return load(p); }
    static Loaded read_some(const W* p, int64_t n) { return load_some(p, n); }
    static Loaded input(const X* p) { return load(p); }
    static Loaded input_some(const X* p, int64_t n) { return load_some(p, n); }
    static void add(vec& sum, Loaded weight, Loaded input) { sum += weight * input; }
};

#if PAIRS
struct Paired {  // bfloat16 on both sides, two products a lane
    using W = bfloat16;
    using X = bfloat16;
    using Loaded = __m512bh;
    static constexpr int STEP = 2 * LANES;
    static Loaded read(const W* p) { return copy<Loaded>(p); }
    static Loaded read_some(const W* p, int64_t n) {
        W part[STEP] = {};
        std::memcpy(part, p, n * sizeof(W));
        return read(part);
    }
    static Loaded input(const X* p) { return read(p); }
    static Loaded input_some(const X* p, int64_t n) { return read_some(p, n); }
    static void add(vec& sum, Loaded weight, Loaded input) { sum = vec(_mm512_dpbf16_ps(__m512(sum), weight, input)); }
};
using Bfloat16 = Paired;
#else
using Bfloat16 = Widened<bfloat16>;
#endif

// R rows of inputs times TILE_OUT rows of the matrix. The next rows are asked for meanwhile, in the order in which they lie and
// for the second cache, which can wait for more of them at once than the first.
template <typename T, int R>
inline void tile(const typename T::X* const* x, const typename T::W* const* w, int64_t c_count, float (*out)[TILE_OUT]) {
    vec sums[R][TILE_OUT] = {};
    const int64_t whole = c_count / T::STEP * T::STEP;
    for (int64_t c = 0; c < whole; c += T::STEP) {
        typename T::Loaded weights[TILE_OUT];
        for (int k = 0; k < TILE_OUT; k++) {
            weights[k] = T::read(w[k] + c);
            __builtin_prefetch(reinterpret_cast<const char*>(w[0] + TILE_OUT * (c_count + c)) + 64 * k, 0, 2);
        }
        for (int r = 0; r < R; r++) {
            typename T::Loaded input = T::input(x[r] + c);
            KEEP(input);
            for (int k = 0; k < TILE_OUT; k++) T::add(sums[r][k], weights[k], input);
        }
    }
    if (whole < c_count)
        for (int k = 0; k < TILE_OUT; k++) {
            const typename T::Loaded weight = T::read_some(w[k] + whole, c_count - whole);
            for (int r = 0; r < R; r++) T::add(sums[r][k], weight, T::input_some(x[r] + whole, c_count - whole));
        }
    for (int r = 0; r < R; r++) sums_of(sums[r][0], sums[r][1], sums[r][2], sums[r][3], out[r]);
}

template <typename T>
inline void tile_of(int rows, const typename T::X* const* x, const typename T::W* const* w, int64_t c, float (*out)[TILE_OUT]) {
    constexpr int most = TILE_ROWS;
    switch (rows) {
        case 1: return tile<T, 1>(x, w, c, out);
        case 2: return tile<T, 2>(x, w, c, out);
        case 3: return tile<T, most < 3 ? most : 3>(x, w, c, out);
        case 4: return tile<T, most < 4 ? most : 4>(x, w, c, out);
        case 5: return tile<T, most < 5 ? most : 5>(x, w, c, out);
        default: return tile<T, most>(x, w, c, out);
    }
}

// E matrices [O, C] row by row; scale [E, O] or null.
template <typename T>
struct RowMajor {
    using X = typename T::X;
    static constexpr int64_t CHUNK = 64, LEAST = 8;  // features out of a piece of work, at most and at least

    const typename T::W* data;
    const bfloat16* scale;
    int64_t outputs, inputs;

    // Features out first..last-1 of one expert for `rows` rows of inputs -> out [rows, step].
    void multiply(int64_t expert, int64_t first, int64_t last, const X* const* x, int rows, float* out, int64_t step) const {
        const int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
        for (int64_t o = first; o < last; o += TILE_OUT) {
            const int wide = int(last - o < TILE_OUT ? last - o : TILE_OUT);
            const typename T::W* w[TILE_OUT];
            four factor = {1, 1, 1, 1};
            for (int k = 0; k < TILE_OUT; k++) {
                const int64_t row = expert * outputs + o + (k < wide ? k : wide - 1);
                w[k] = data + row * inputs;
                if (scale) factor[k] = widen(scale[row]);
            }
            for (int t = 0; t < tiles; t++) {
                const int begin = t * rows / tiles, high = (t + 1) * rows / tiles - begin;
                float made[TILE_ROWS][TILE_OUT];
                tile_of<T>(high, x + begin, w, inputs, made);
                for (int r = 0; r < high; r++) {
                    four sums = copy<four>(made[r]);
                    if (scale) sums *= factor;
                    float* target = out + (begin + r) * step + o - first;
                    if (wide == TILE_OUT)
                        std::memcpy(target, &sums, sizeof sums);
                    else
                        std::memcpy(target, &sums, wide * sizeof(float));
                }
            }
        }
    }
};

}  // namespace
