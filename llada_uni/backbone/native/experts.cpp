// The routed experts of a layer on a CPU, plain linear products and attention, in one call each.
//
//   out[n] = sum over k of share[n, k] * down[e] (silu(gate[e] x[n]) * (up[e] x[n])),   e = chosen[n, k]
//
// (token, expert) pairs are sorted by expert; pieces of work are some features out of one expert for its rows, shared by the
// threads. A block of generation gives an expert one to a few rows, so the time is that of reading the weights: once, in
// order. What a token gets does not depend on the other tokens, nor on the number of threads, bit for bit.
// Axes: N tokens, K experts a token, M = N * K pairs, E experts, D width, I inner features, O features out, C features in.
// Plain C interface; neither torch's nor Python's headers are needed.
#include <algorithm>
#include <cstdlib>
#include <vector>

#include "attention.h"
#include "int4.h"
#include "products.h"
#include "steps.h"

namespace {

enum Kind : int32_t { FLOAT32, BFLOAT16, INT8, INT4 };
constexpr int64_t MOST_ROWS = 96;  // rows of a piece: their inputs stay in the second cache
constexpr size_t KEPT = 8 << 20;   // bytes of working memory a thread keeps from call to call

struct Memory {  // of one thread: pages that are touched again and again need not be asked for each time
    char* data = nullptr;
    size_t size = 0;
    char* take(size_t wanted) {
        if (wanted > size) {
            std::free(data);
            data = static_cast<char*>(std::malloc(wanted));
            size = data ? wanted : 0;
        }
        return data;
    }
    void trim() {
        if (size > KEPT) {
            std::free(data);
            data = nullptr;
            size = 0;
        }
    }
    ~Memory() { std::free(data); }
};
thread_local Memory memory;

struct Piece {
    int64_t expert, begin, end, first, last;  // sorted rows begin..end-1, features out first..last-1
};

// Features out of a piece: fewer than the most where there would be too few pieces for all threads to end together.
template <typename Matrix>
int64_t chunk_of(const Matrix& matrix, int64_t parts, int threads) {
    int64_t chunk = Matrix::CHUNK;
    while (chunk > Matrix::LEAST && parts * matrix.outputs < 8 * threads * chunk) chunk /= 2;
    return chunk;
}

void cut(std::vector<Piece>& pieces, int64_t expert, int64_t begin, int64_t end, int64_t outputs, int64_t chunk) {
    const int64_t parts = (end - begin + MOST_ROWS - 1) / MOST_ROWS;
    for (int64_t o = 0; o < outputs; o += chunk)
        for (int64_t p = 0; p < parts; p++)
            pieces.push_back({expert, begin + (end - begin) * p / parts, begin + (end - begin) * (p + 1) / parts, o,
                              std::min(o + chunk, outputs)});
}

inline void put(float* target, vec values) { std::memcpy(target, &values, sizeof values); }
inline void put(bfloat16* target, vec values) {
    for (int i = 0; i < LANES; i++) target[i] = narrow(values[i]);
}
inline float get(const float* p) { return *p; }
inline float get(const bfloat16* p) { return widen(*p); }

// Inputs as the product wants them: as they are, or converted into `room`.
template <typename X, typename Given>
const X* inputs_as(const Given* given, int64_t count, X* room) {
    for (int64_t i = 0; i < count; i++) put(room + i, get(given + i));
    return room;
}
inline const float* inputs_as(const float* given, int64_t, float*) { return given; }
inline const bfloat16* inputs_as(const bfloat16* given, int64_t, bfloat16*) { return given; }

struct Order {  // pairs sorted by expert, tokens in order inside one
    std::vector<int64_t> ends, pair, row;
    Order(const int64_t* chosen, int64_t pairs, int64_t experts) : ends(experts + 1), pair(pairs), row(pairs) {
        for (int64_t p = 0; p < pairs; p++) ends[chosen[p] + 1]++;
        for (int64_t e = 0; e < experts; e++) ends[e + 1] += ends[e];
        std::vector<int64_t> next(ends.begin(), ends.end() - 1);
        for (int64_t p = 0; p < pairs; p++) {
            row[p] = next[chosen[p]]++;
            pair[row[p]] = p;
        }
    }
};

// out [D] = sum over a token's k results of share * result, the results being rows of [M, D].
template <typename Given>
void gather(const float* result, const int64_t* row, const float* share, int64_t k, int64_t width, Given* out) {
    int64_t d = 0;
    for (; d + LANES <= width; d += LANES) {
        vec sum = {};
        for (int64_t i = 0; i < k; i++) sum += share[i] * load(result + row[i] * width + d);
        put(out + d, sum);
    }
    for (; d < width; d++) {
        float sum = 0;
        for (int64_t i = 0; i < k; i++) sum += share[i] * result[row[i] * width + d];
        put(out + d, sum);
    }
}

template <typename Matrix, typename Given>
int experts(const Matrix& gate, const Matrix& up, const Matrix& down, const Given* given, const int64_t* chosen, const float* share,
            int64_t n, int64_t k, int64_t e_count, Given* out, int threads) {
    using X = typename Matrix::X;
    const int64_t width = gate.inputs, inner = gate.outputs, pairs = n * k;
    for (int64_t p = 0; p < pairs; p++)
        if (chosen[p] < 0 || chosen[p] >= e_count) return 2;
    const Order order(chosen, pairs, e_count);
    std::vector<Piece> before, after;
    int64_t parts = 0;
    for (int64_t e = 0; e < e_count; e++) parts += (order.ends[e + 1] - order.ends[e] + MOST_ROWS - 1) / MOST_ROWS;
    for (int64_t e = 0; e < e_count; e++) {
        cut(before, e, order.ends[e], order.ends[e + 1], inner, chunk_of(gate, parts, threads));
        cut(after, e, order.ends[e], order.ends[e + 1], width, chunk_of(down, parts, threads));
    }
    const size_t results = pairs * width * sizeof(float), middle = pairs * inner * sizeof(X);
    char* room = memory.take(results + middle + n * width * sizeof(X));
    if (!room) return 1;
    float* result = reinterpret_cast<float*>(room);       // [M, D] of each pair
    X* hidden = reinterpret_cast<X*>(room + results);     // [M, I]
    const X* x = inputs_as(given, n * width, reinterpret_cast<X*>(room + results + middle));
    const int64_t first_count = int64_t(before.size()), second_count = int64_t(after.size());
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        const X* rows[MOST_ROWS];
        float left[MOST_ROWS * Matrix::CHUNK], right[MOST_ROWS * Matrix::CHUNK];
#pragma omp for schedule(dynamic, 1)
        for (int64_t i = 0; i < first_count; i++) {
            const Piece& piece = before[i];
            const int high = int(piece.end - piece.begin);
            const int64_t wide = piece.last - piece.first;
            for (int r = 0; r < high; r++) rows[r] = x + order.pair[piece.begin + r] / k * width;
            gate.multiply(piece.expert, piece.first, piece.last, rows, high, left, Matrix::CHUNK);
            up.multiply(piece.expert, piece.first, piece.last, rows, high, right, Matrix::CHUNK);
            for (int r = 0; r < high; r++) {
                float* a = left + r * Matrix::CHUNK;
                const float* b = right + r * Matrix::CHUNK;
                for (int64_t o = 0; o < Matrix::CHUNK; o += LANES) {  // what stands behind `wide` is not used
                    const vec product = silu(load(a + o)) * load(b + o);
                    std::memcpy(a + o, &product, sizeof product);
                }
                X* target = hidden + (piece.begin + r) * inner + piece.first;
                for (int64_t o = 0; o < wide; o++) put(target + o, a[o]);
            }
        }
#pragma omp for schedule(dynamic, 2)
        for (int64_t i = 0; i < second_count; i++) {
            const Piece& piece = after[i];
            const int high = int(piece.end - piece.begin);
            for (int r = 0; r < high; r++) rows[r] = hidden + (piece.begin + r) * inner;
            down.multiply(piece.expert, piece.first, piece.last, rows, high, result + piece.begin * width + piece.first, width);
        }
#pragma omp for schedule(static)
        for (int64_t t = 0; t < n; t++) gather(result, order.row.data() + t * k, share + t * k, k, width, out + t * width);
    }
    memory.trim();
    return 0;
}

template <typename Matrix, typename Given>
int linear(const Matrix& matrix, const Given* given, int64_t n, Given* out, int threads) {
    using X = typename Matrix::X;
    X* room = reinterpret_cast<X*>(memory.take(n * matrix.inputs * sizeof(X)));
    if (!room) return 1;
    const X* x = inputs_as(given, n * matrix.inputs, room);
    std::vector<Piece> pieces;
    cut(pieces, 0, 0, n, matrix.outputs, chunk_of(matrix, (n + MOST_ROWS - 1) / MOST_ROWS, threads));
    const int64_t count = int64_t(pieces.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t i = 0; i < count; i++) {
        const Piece& piece = pieces[i];
        const int high = int(piece.end - piece.begin);
        const X* rows[MOST_ROWS];
        float made[MOST_ROWS * Matrix::CHUNK];
        for (int r = 0; r < high; r++) rows[r] = x + (piece.begin + r) * matrix.inputs;
        matrix.multiply(0, piece.first, piece.last, rows, high, made, Matrix::CHUNK);
        for (int r = 0; r < high; r++)
            for (int64_t o = piece.first; o < piece.last; o++)
                put(out + (piece.begin + r) * matrix.outputs + o, made[r * Matrix::CHUNK + o - piece.first]);
    }
    memory.trim();
    return 0;
}

}  // namespace

struct Stored {  // E matrices [O, C] of a kind; scale and group only where the kind has them
    const void* data;
    const void* scale;
    int64_t outputs, inputs, group;
};

#include "layer.h"

extern "C" {

// What this was compiled for: lanes of a vector, and whether pairs of bfloat16 are multiplied by the processor.
int llada_uni_lanes() { return LANES + 1000 * PAIRS; }

void llada_uni_norm(const float* x, const float* weight, int64_t n, int64_t width, float eps, float* out, int threads) {
    norm(x, weight, n, width, eps, out, threads);
}

void llada_uni_turn(const float* fused, const float* weight, const float* cos, const float* sin, int64_t n, int64_t heads, int64_t total,
                    int64_t width, int64_t turned, float eps, float* out, int threads) {
    turn(fused, weight, cos, sin, n, heads, total, width, turned, eps, out, threads);
}

// Queries [N, H, d], keys and values [N, G, d] of new tokens, with the distances of tokens and heads in memory -> out [N, H, d].
void llada_uni_attend(const void* sequences, int64_t count, int64_t layer, const float* queries, int64_t query_token, int64_t query_head,
                      const float* keys, int64_t key_token, int64_t key_head, const float* values, int64_t value_token, int64_t value_head,
                      int64_t heads, int64_t groups, int64_t width, float* out, int threads) {
    attend(static_cast<const Sequence*>(sequences), count, layer, {queries, query_token, query_head}, {keys, key_token, key_head},
           {values, value_token, value_head}, heads, groups, width, out, threads);
}

void llada_uni_route(const float* logits, const float* bias, int64_t n, int64_t e, int64_t k, int64_t groups, int64_t kept,
                     int normalized, float scaling, float* shares, int64_t* chosen, int threads) {
    route(logits, bias, n, e, k, groups, kept, normalized, scaling, shares, chosen, threads);
}

void llada_uni_greedy(const float* logits, int64_t n, int64_t v, int64_t forbidden, int64_t* choice, float* share, int threads) {
    greedy(logits, n, v, forbidden, choice, share, threads);
}

// A layer on packed tokens, see layer.h. 0, or what `llada_uni_experts` gives.
int llada_uni_layer(const LayerWeights* weights, const float* x, int64_t n, const float* cos, const float* sin, const void* sequences,
                    int64_t count, int64_t number, float* out, int threads) {
    return layer(*weights, x, n, cos, sin, static_cast<const Sequence*>(sequences), count, number, out, threads);
}

// 0; 1: no memory; 2: an expert that is not there. wide: x and out are float32, else bfloat16.
#define MATRIX(Form, m) Form{static_cast<decltype(Form::data)>(m->data), static_cast<const bfloat16*>(m->scale), m->outputs, m->inputs}
#define INT4_MATRIX(m) Int4{static_cast<const uint8_t*>(m->data), static_cast<const bfloat16*>(m->scale), m->outputs, m->inputs, m->group}
#define RUN(a, b, c)                                                                                                              \
    (wide ? experts(a, b, c, static_cast<const float*>(x), chosen, share, n, k, e, static_cast<float*>(out), threads)              \
          : experts(a, b, c, static_cast<const bfloat16*>(x), chosen, share, n, k, e, static_cast<bfloat16*>(out), threads))

int llada_uni_experts(int kind, const Stored* gate, const Stored* up, const Stored* down, const void* x, int wide, const int64_t* chosen,
                      const float* share, int64_t n, int64_t k, int64_t e, void* out, int threads) {
    switch (kind) {
        case FLOAT32: return RUN(MATRIX(RowMajor<Widened<float>>, gate), MATRIX(RowMajor<Widened<float>>, up), MATRIX(RowMajor<Widened<float>>, down));
        case BFLOAT16: return RUN(MATRIX(RowMajor<Bfloat16>, gate), MATRIX(RowMajor<Bfloat16>, up), MATRIX(RowMajor<Bfloat16>, down));
        case INT8: return RUN(MATRIX(RowMajor<Widened<int8_t>>, gate), MATRIX(RowMajor<Widened<int8_t>>, up), MATRIX(RowMajor<Widened<int8_t>>, down));
        case INT4: return RUN(INT4_MATRIX(gate), INT4_MATRIX(up), INT4_MATRIX(down));
    }
    return 3;
}

// One expert of an int4 matrix, in float32 (wide) or bfloat16, transposed: [C, O].
void llada_uni_plain(const Stored* m, int64_t expert, int wide, void* out, int threads) {
    const Int4 matrix = INT4_MATRIX(m);
    constexpr int64_t columns = 64;  // of a piece
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (int64_t c = 0; c < m->inputs; c += columns) {
        const int64_t last = std::min(c + columns, m->inputs);
        if (wide)
            matrix.plain(expert, c, last, static_cast<float*>(out));
        else
            matrix.plain(expert, c, last, static_cast<bfloat16*>(out));
    }
}

int llada_uni_linear(int kind, const Stored* matrix, const void* x, int wide, int64_t n, void* out, int threads) {
    const auto run = [&](const auto& m) {
        return wide ? linear(m, static_cast<const float*>(x), n, static_cast<float*>(out), threads)
                    : linear(m, static_cast<const bfloat16*>(x), n, static_cast<bfloat16*>(out), threads);
    };
    switch (kind) {
        case FLOAT32: return run(MATRIX(RowMajor<Widened<float>>, matrix));
        case BFLOAT16: return run(MATRIX(RowMajor<Bfloat16>, matrix));
        case INT8: return run(MATRIX(RowMajor<Widened<int8_t>>, matrix));
        case INT4: return run(INT4_MATRIX(matrix));
    }
    return 3;
}
}
