// A whole layer of the backbone on packed tokens in one call: what backbone/model.py's Layer computes, step by step the same
// functions that are called one by one otherwise, so the same to the bit. A step of a generation is short; asking for its twenty
// operations one by one from Python would take a fifth of it.
// Axes: N tokens, D width, H heads, G groups, d features a head, E experts, K experts a token.
#pragma once
#include <algorithm>

#include "attention.h"
#include "steps.h"

namespace {

struct LayerWeights {
    const float *norm_before, *norm_after, *norm_query, *norm_key, *router_bias;  // [D], [D], [d], [d], [E]
    Stored query_key_value, dense, router, gate, up, down;  // routed experts; without a router the dense network
    Stored shared_gate, shared_up, shared_down;
    int64_t heads, groups, width, turned;                        // of attention: H, G, d, features of a head that turn
    int64_t top_k, router_groups, kept_groups, normalized;       // of the router
    float scaling, eps;
};

inline void add(const float* a, const float* b, int64_t count, float* out) {
    for (int64_t i = 0; i < count; i++) out[i] = a[i] + b[i];
}

using Plain = RowMajor<Widened<float>>;
inline Plain plain(const Stored& m) { return {static_cast<const float*>(m.data), nullptr, m.outputs, m.inputs}; }

// A network of one expert that every token chooses.
inline int one_expert(const Stored& gate, const Stored& up, const Stored& down, const float* x, int64_t n, float* out, int threads) {
    const std::vector<int64_t> first(n);
    const std::vector<float> whole(n, 1.0f);
    return experts(plain(gate), plain(up), plain(down), x, first.data(), whole.data(), n, 1, 1, out, threads);
}

// x [N, D] -> out [N, D]; cos, sin [N, R]. 0, or the code of `experts`.
inline int layer(const LayerWeights& w, const float* x, int64_t n, const float* cos, const float* sin, const Sequence* sequences,
                 int64_t count, int64_t number, float* out, int threads) {
    const int64_t d = w.query_key_value.inputs, total = w.heads + 2 * w.groups, turning = w.heads + w.groups, size = n * d;
    const int64_t experts_count = w.router.outputs;
    std::vector<float> a(size), b(size), fused(n * total * w.width), turned(n * turning * w.width), mixed(n * w.heads * w.width);
    norm(x, w.norm_before, n, d, w.eps, a.data(), threads);
    linear(plain(w.query_key_value), a.data(), n, fused.data(), threads);
    std::vector<float> scale(turning * w.width);  // of each head
    for (int64_t h = 0; h < turning; h++) std::copy_n(h < w.heads ? w.norm_query : w.norm_key, w.width, scale.data() + h * w.width);
    turn(fused.data(), scale.data(), cos, sin, n, turning, total, w.width, w.turned, w.eps, turned.data(), threads);
    const Heads queries{turned.data(), turning * w.width, w.width}, keys{turned.data() + w.heads * w.width, turning * w.width, w.width};
    const Heads values{fused.data() + turning * w.width, total * w.width, w.width};
    attend(sequences, count, number, queries, keys, values, w.heads, w.groups, w.width, mixed.data(), threads);
    linear(plain(w.dense), mixed.data(), n, a.data(), threads);
    add(x, a.data(), size, out);
    norm(out, w.norm_after, n, d, w.eps, a.data(), threads);
    if (!experts_count) {
        if (int code = one_expert(w.gate, w.up, w.down, a.data(), n, b.data(), threads)) return code;
    } else {
        std::vector<float> logits(n * experts_count), shares(n * w.top_k), shared(size);
        std::vector<int64_t> chosen(n * w.top_k);
        linear(plain(w.router), a.data(), n, logits.data(), threads);
        route(logits.data(), w.router_bias, n, experts_count, w.top_k, w.router_groups, w.kept_groups, int(w.normalized), w.scaling,
              shares.data(), chosen.data(), threads);
        int code = experts(plain(w.gate), plain(w.up), plain(w.down), a.data(), chosen.data(), shares.data(), n, w.top_k, experts_count,
                           b.data(), threads);
        if (!code) code = one_expert(w.shared_gate, w.shared_up, w.shared_down, a.data(), n, shared.data(), threads);
        if (code) return code;
        add(b.data(), shared.data(), size, b.data());
    }
    add(out, b.data(), size, out);
    return 0;
}

}  // namespace
