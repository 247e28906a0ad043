// What stands between the products of a layer: normalization, rotary positions, the router's choice. float32, row by row.
//
// Axes: N tokens, D width, H heads, d features a head, R of them turned, E experts in groups, K chosen.
#pragma once
#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "vectors.h"

namespace {

constexpr int64_t WORTH_THREADS = 1 << 15;  // numbers: below, waking the other threads takes longer than the work

// x / rms(x) * weight
inline void normalize(const float* x, const float* weight, int64_t width, float eps, float* out) {
    vec lanes = {};
    int64_t i = 0;
    for (; i + LANES <= width; i += LANES) lanes += load(x + i) * load(x + i);
    if (i < width) {
        const vec rest = load_some(x + i, width - i);
        lanes += rest * rest;
    }
    float four[4];
    sums_of(lanes, lanes, lanes, lanes, four);
    const float scale = 1.0f / std::sqrt(four[0] / float(width) + eps);
    for (i = 0; i < width; i++) out[i] = x[i] * scale * weight[i];
}

inline void norm(const float* x, const float* weight, int64_t n, int64_t width, float eps, float* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n * width > WORTH_THREADS)
    for (int64_t t = 0; t < n; t++) normalize(x + t * width, weight, width, eps, out + t * width);
}

// Queries and keys, the first `heads` of each token's `total`: normalized, each head with its own scale [H, d], and turned:
// out = y * cos + swapped(y) * sin on the first R features, sin with the sign of the rotation.
inline void turn(const float* fused, const float* weight, const float* cos, const float* sin, int64_t n, int64_t heads,
                 int64_t total, int64_t width, int64_t turned, float eps, float* out, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n * heads * width > WORTH_THREADS)
    for (int64_t t = 0; t < n; t++)
        for (int64_t h = 0; h < heads; h++) {
            float* y = out + (t * heads + h) * width;
            normalize(fused + (t * total + h) * width, weight + h * width, width, eps, y);
            const float *c = cos + t * turned, *s = sin + t * turned;
            const int64_t half = turned / 2;
            for (int64_t i = 0; i < half; i++) {
                const float first = y[i], second = y[i + half];
                y[i] = first * c[i] + second * s[i];
                y[i + half] = second * c[i + half] + first * s[i + half];
            }
        }
}

// The greedy choice of each row of logits [N, V], the first of the largest that is not `forbidden` (-1: none is), and its share of
// the softmax over all: see generation/sampling.py.
inline void greedy(const float* logits, int64_t n, int64_t v, int64_t forbidden, int64_t* choice, float* share, int threads) {
    constexpr float LOWEST = -std::numeric_limits<float>::infinity();
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1 && n * v > WORTH_THREADS)
    for (int64_t t = 0; t < n; t++) {
        const float* x = logits + t * v;
        const vec lowest = vec{} + LOWEST, least = vec{} - 87.0f;  // exp of less is nothing
        vec high = lowest;
        int64_t i = 0;
        for (; i + LANES <= v; i += LANES) {
            const vec here = load(x + i);
            high = here > high ? here : high;
        }
        float top = LOWEST;
        for (int64_t lane = 0; lane < LANES; lane++) top = std::max(top, high[lane]);
        for (; i < v; i++) top = std::max(top, x[i]);
        int64_t best = 0;
        while (best < v && x[best] != top) best++;
        if (best == forbidden || best == v) {  // rare: look again without it, or among numbers that are none
            best = -1;
            for (i = 0; i < v; i++)
                if (i != forbidden && (best < 0 || x[i] > x[best])) best = i;
            if (best < 0) best = 0;
        }
        vec sums = {};
        for (i = 0; i + LANES <= v; i += LANES) {
            const vec below = load(x + i) - top;
            sums += exp_of(below < least ? least : below);
        }
        float four[4];
        sums_of(sums, sums, sums, sums, four);
        float sum = four[0];
        for (; i < v; i++) sum += std::exp(x[i] - top);
        choice[t] = best;
        share[t] = std::exp(x[best] - top) / sum;
    }
}

// The best of `count` values not taken yet; of equal ones the first.
inline int64_t best_of(const float* values, const char* taken, int64_t count) {
    int64_t best = -1;
    for (int64_t i = 0; i < count; i++)
        if (!taken[i] && (best < 0 || values[i] > values[best])) best = i;
    return best < 0 ? 0 : best;
}

// logits [N, E] -> K experts of each token and their shares: see moe.Router.
inline void route(const float* logits, const float* bias, int64_t n, int64_t e, int64_t k, int64_t groups, int64_t kept, int normalized,
                  float scaling, float* shares, int64_t* chosen, int threads) {
    const int64_t size = e / groups;
#pragma omp parallel num_threads(threads) if (threads > 1 && n * e * k > WORTH_THREADS)
    {
        std::vector<float> score(e + LANES), biased(e), strength(groups);
        std::vector<char> taken(e), open(groups);
#pragma omp for schedule(static)
        for (int64_t t = 0; t < n; t++) {
            for (int64_t i = 0; i < e; i += LANES) {
                const vec x = e - i < LANES ? load_some(logits + t * e + i, e - i) : load(logits + t * e + i);
                const vec s = 1.0f / (exp_of(-x) + 1.0f);
                std::memcpy(score.data() + i, &s, sizeof s);
            }
            for (int64_t i = 0; i < e; i++) biased[i] = score[i] + bias[i];
            std::fill(taken.begin(), taken.end(), char(0));
            if (kept < groups) {
                std::fill(open.begin(), open.end(), char(0));
                for (int64_t g = 0; g < groups; g++) {  // the two best members together
                    float first = -std::numeric_limits<float>::infinity(), second = first;
                    for (int64_t i = g * size; i < (g + 1) * size; i++) {
                        if (biased[i] > first) {
                            second = first;
                            first = biased[i];
                        } else if (biased[i] > second) {
                            second = biased[i];
                        }
                    }
                    strength[g] = size > 1 ? first + second : first;
                }
                for (int64_t i = 0; i < kept; i++) open[best_of(strength.data(), open.data(), groups)] = 1;
                for (int64_t i = 0; i < e; i++) taken[i] = !open[i / size];
            }
            float sum = 1e-20f;
            for (int64_t i = 0; i < k; i++) {
                const int64_t best = best_of(biased.data(), taken.data(), e);
                taken[best] = 1;
                chosen[t * k + i] = best;
                shares[t * k + i] = score[best];
                sum += score[best];
            }
            for (int64_t i = 0; i < k; i++) shares[t * k + i] = (normalized ? shares[t * k + i] / sum : shares[t * k + i]) * scaling;
        }
    }
}

}  // namespace
