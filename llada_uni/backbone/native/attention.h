// Softmax attention of the new tokens of several sequences, each over its own cached keys and values, in one call. float32.
//
//   out[t, h] = sum over s of softmax(scale * q[t, h] . k[s, g]) * v[s, g],   g the group of head h, s below the token's `seen`
//
// The keys are taken in tiles of KEYS, from the first on, with a running maximum (arXiv:2205.14135). A tile of keys is turned once
// for all rows, so that scores lie in the lanes and no sum over lanes is needed. What a token gets depends neither on the other
// tokens nor on the number of threads, bit for bit. A row is a token and one of the heads of a group.
// Axes: N new tokens, S cached positions, H heads, G groups of heads, d features a head.
#pragma once
#include <cmath>
#include <cstdlib>
#include <vector>

#include "vectors.h"

namespace {

constexpr int KEYS = TILE_OUT * LANES;
constexpr int ATTEND_ROWS = 64;  // of a piece of work: enough to be worth turning the keys

struct Sequence {  // new tokens start..stop-1 of the stream; its cache: [G, capacity, d] of each layer, `length` positions known
    float *keys, *values;
    int64_t layer_stride, group_stride, length, start, stop;
    const int64_t* ends;  // of its blocks, in the stream
    int64_t blocks;
};

struct Heads {  // [N, heads, d] somewhere in memory
    const float* data;
    int64_t token_stride, head_stride;
    const float* at(int64_t token, int64_t head) const { return data + token * token_stride + head * head_stride; }
};

struct Look {  // tokens first..last-1 (rows of them) of a sequence that see `seen` positions, one group
    const Sequence* sequence;
    int64_t group, first, last, seen;
};

struct Scratch {
    std::vector<float> query, turned, score, mixed, sum;
    float most[ATTEND_ROWS], fade[ATTEND_ROWS];
    explicit Scratch(int64_t d)
        : query(ATTEND_ROWS * d), turned(KEYS * d), score(ATTEND_ROWS * KEYS), mixed(ATTEND_ROWS * d), sum(ATTEND_ROWS * LANES) {}
};

inline void keep(float* p, vec v) { std::memcpy(p, &v, sizeof v); }

// R rows of `left` [R, C], whose rows are `left_step` apart, times `right` [C, W * LANES] -> added to, or put into, `out`.
template <int R, int W>
inline void outer(const float* left, int64_t left_step, const float* right, int64_t right_step, int64_t c_count, float* out,
                  int64_t out_step, bool adds) {
    vec sums[R][W] = {};
    if (adds)
        for (int r = 0; r < R; r++)
            for (int k = 0; k < W; k++) sums[r][k] = load(out + r * out_step + k * LANES);
    for (int64_t c = 0; c < c_count; c++) {
        vec row[W];
        for (int k = 0; k < W; k++) row[k] = load(right + c * right_step + k * LANES);
        for (int r = 0; r < R; r++) {
            vec factor = left[r * left_step + c] - vec{};
            KEEP(factor);
            for (int k = 0; k < W; k++) sums[r][k] += factor * row[k];
        }
    }
    for (int r = 0; r < R; r++)
        for (int k = 0; k < W; k++) keep(out + r * out_step + k * LANES, sums[r][k]);
}

template <int W>
inline void outer_rows(int rows, const float* left, int64_t left_step, const float* right, int64_t right_step, int64_t c_count,
                       float* out, int64_t out_step, bool adds) {
    const int tiles = (rows + TILE_ROWS - 1) / TILE_ROWS;
    for (int t = 0; t < tiles; t++) {
        const int begin = t * rows / tiles, high = (t + 1) * rows / tiles - begin;
        const float* l = left + begin * left_step;
        float* o = out + begin * out_step;
        constexpr int most = TILE_ROWS;
        switch (high) {
            case 1: outer<1, W>(l, left_step, right, right_step, c_count, o, out_step, adds); break;
            case 2: outer<2, W>(l, left_step, right, right_step, c_count, o, out_step, adds); break;
            case 3: outer<most < 3 ? most : 3, W>(l, left_step, right, right_step, c_count, o, out_step, adds); break;
            case 4: outer<most < 4 ? most : 4, W>(l, left_step, right, right_step, c_count, o, out_step, adds); break;
            case 5: outer<most < 5 ? most : 5, W>(l, left_step, right, right_step, c_count, o, out_step, adds); break;
            default: outer<most, W>(l, left_step, right, right_step, c_count, o, out_step, adds);
        }
    }
}

inline float largest(vec v) {
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(__m512(v));
#endif
    float lane[LANES];
    keep(lane, v);
    for (int half = LANES / 2; half; half /= 2)
        for (int i = 0; i < half; i++) lane[i] = lane[i] > lane[i + half] ? lane[i] : lane[i + half];
    return lane[0];
}

// Scores [rows, KEYS], of which `count` are keys -> their exponentials below the running maximum; sums and factors go along.
inline void soften(Scratch& s, int rows, int64_t count) {
    for (int r = 0; r < rows; r++) {
        float* score = s.score.data() + r * KEYS;
        for (int64_t i = count; i < KEYS; i++) score[i] = -1e30f;
        vec best = load(score);
        for (int k = 1; k < TILE_OUT; k++) {
            const vec other = load(score + k * LANES);
            best = best > other ? best : other;
        }
        const float found = largest(best), most = found > s.most[r] ? found : s.most[r];
        s.fade[r] = exp_of((s.most[r] - most) - vec{})[0];
        s.most[r] = most;
        vec sum = load(s.sum.data() + r * LANES) * s.fade[r];
        for (int k = 0; k < TILE_OUT; k++) keep(score + k * LANES, exp_of(load(score + k * LANES) - most));
        for (int64_t i = count; i < KEYS; i++) score[i] = 0;
        for (int k = 0; k < TILE_OUT; k++) sum += load(score + k * LANES);
        keep(s.sum.data() + r * LANES, sum);
    }
}

#if defined(__AVX512F__)
// 16 rows of 16 -> their columns: pairs of numbers, pairs of pairs, then quarters of vectors change places.
inline void turn_square(const float* from, int64_t step, float* out) {
    __m512 a[16], b[16];
    for (int i = 0; i < 16; i++) a[i] = __m512(load(from + i * step));
    for (int i = 0; i < 16; i += 2) {
        b[i] = _mm512_unpacklo_ps(a[i], a[i + 1]);
        b[i + 1] = _mm512_unpackhi_ps(a[i], a[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)  // a[i + j]: column j of each quarter, of rows i to i + 3
        for (int j = 0; j < 2; j++) {
            const __m512d low = _mm512_castps_pd(b[i + j]), high = _mm512_castps_pd(b[i + j + 2]);
            a[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
            a[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
        }
    for (int j = 0; j < 4; j++) {
        const __m512 even = _mm512_shuffle_f32x4(a[j], a[j + 4], 0x88), odd = _mm512_shuffle_f32x4(a[j], a[j + 4], 0xdd);
        const __m512 even2 = _mm512_shuffle_f32x4(a[j + 8], a[j + 12], 0x88), odd2 = _mm512_shuffle_f32x4(a[j + 8], a[j + 12], 0xdd);
        keep(out + j * KEYS, vec(_mm512_shuffle_f32x4(even, even2, 0x88)));
        keep(out + (j + 4) * KEYS, vec(_mm512_shuffle_f32x4(odd, odd2, 0x88)));
        keep(out + (j + 8) * KEYS, vec(_mm512_shuffle_f32x4(even, even2, 0xdd)));
        keep(out + (j + 12) * KEYS, vec(_mm512_shuffle_f32x4(odd, odd2, 0xdd)));
    }
}
#endif

// Keys [count, d] -> [d, KEYS], zeros behind the last.
inline void turn_keys(const float* keys, int64_t count, int64_t d, float* out) {
    int64_t done = 0;
#if defined(__AVX512F__)
    for (; done + LANES <= count; done += LANES)
        for (int64_t c = 0; c < d; c += LANES) turn_square(keys + done * d + c, d, out + c * KEYS + done);
#endif
    for (int64_t s = done; s < count; s++)
        for (int64_t c = 0; c < d; c++) out[c * KEYS + s] = keys[s * d + c];
    for (int64_t s = count; s < KEYS; s++)
        for (int64_t c = 0; c < d; c++) out[c * KEYS + s] = 0;
}

inline void look(const Look& piece, int64_t layer, const Heads& queries, int64_t heads, int64_t groups, int64_t d, float scale, float* out,
                 Scratch& s) {
    const int64_t shared = heads / groups, first = piece.group * shared;
    const int rows = int((piece.last - piece.first) * shared);
    const int64_t base = layer * piece.sequence->layer_stride + piece.group * piece.sequence->group_stride;
    const float *keys = piece.sequence->keys + base, *values = piece.sequence->values + base;
    for (int r = 0; r < rows; r++) {
        const float* q = queries.at(piece.first + r / shared, first + r % shared);
        for (int64_t c = 0; c < d; c++) s.query[r * d + c] = q[c] * scale;
        s.most[r] = -1e30f;
    }
    std::fill(s.mixed.begin(), s.mixed.begin() + rows * d, 0.0f);
    std::fill(s.sum.begin(), s.sum.begin() + rows * LANES, 0.0f);
    for (int64_t at = 0; at < piece.seen; at += KEYS) {
        const int64_t count = piece.seen - at < KEYS ? piece.seen - at : KEYS;
        turn_keys(keys + at * d, count, d, s.turned.data());
        outer_rows<TILE_OUT>(rows, s.query.data(), d, s.turned.data(), KEYS, d, s.score.data(), KEYS, false);
        soften(s, rows, count);
        for (int r = 0; r < rows; r++)
            for (int64_t c = 0; c < d; c += LANES) keep(s.mixed.data() + r * d + c, load(s.mixed.data() + r * d + c) * s.fade[r]);
        int64_t c = 0;
        for (; c + TILE_OUT * LANES <= d; c += TILE_OUT * LANES)
            outer_rows<TILE_OUT>(rows, s.score.data(), KEYS, values + at * d + c, d, count, s.mixed.data() + c, d, true);
        for (; c + 2 * LANES <= d; c += 2 * LANES)
            outer_rows<2>(rows, s.score.data(), KEYS, values + at * d + c, d, count, s.mixed.data() + c, d, true);
        for (; c < d; c += LANES) outer_rows<1>(rows, s.score.data(), KEYS, values + at * d + c, d, count, s.mixed.data() + c, d, true);
    }
    for (int r = 0; r < rows; r++) {
        float all[4];
        const vec lanes = load(s.sum.data() + r * LANES);
        sums_of(lanes, lanes, lanes, lanes, all);
        float* target = out + ((piece.first + r / shared) * heads + first + r % shared) * d;
        for (int64_t i = 0; i < d; i += LANES) keep(target + i, load(s.mixed.data() + r * d + i) / all[0]);
    }
}

// The new keys and values go into the caches, then all look. d must be a multiple of LANES.
inline void attend(const Sequence* sequences, int64_t count, int64_t layer, const Heads& queries, const Heads& keys, const Heads& values,
                   int64_t heads, int64_t groups, int64_t d, float* out, int threads) {
    const int64_t tokens = std::max<int64_t>(1, ATTEND_ROWS / (heads / groups));
    const float scale = 1.0f / std::sqrt(float(d));
    std::vector<Look> pieces;
    for (int64_t i = 0; i < count; i++) {
        const Sequence& s = sequences[i];
        int64_t begin = s.start;
        for (int64_t b = 0; b < s.blocks; begin = s.ends[b++])
            for (int64_t g = 0; g < groups; g++)
                for (int64_t t = begin; t < s.ends[b]; t += tokens)
                    pieces.push_back({&s, g, t, std::min(t + tokens, s.ends[b]), s.length - s.start + s.ends[b]});
    }
    const int64_t all = int64_t(pieces.size());
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        Scratch scratch(d);
#pragma omp for schedule(static) collapse(2)
        for (int64_t i = 0; i < count; i++)
            for (int64_t g = 0; g < groups; g++) {
                const Sequence& s = sequences[i];
                const int64_t place = layer * s.layer_stride + g * s.group_stride + s.length * d;
                for (int64_t t = s.start; t < s.stop; t++) {
                    std::memcpy(s.keys + place + (t - s.start) * d, keys.at(t, g), d * sizeof(float));
                    std::memcpy(s.values + place + (t - s.start) * d, values.at(t, g), d * sizeof(float));
                }
            }
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < all; i++) look(pieces[i], layer, queries, heads, groups, d, scale, out, scratch);
    }
}

}  // namespace
