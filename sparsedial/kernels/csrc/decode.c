/* One token of every sequence through the whole model. Twin: Transformer.forward with a cache.
 *
 * What costs is reading weights, so each is read once in the order in which it lies, by rows. The threads share the
 * matrices of attention by columns and meet after each. The pairs of feed-forward matrices that a step needs (the
 * experts visited and the shared ones, or a dense layer) stand in line; every thread takes an equal piece of that,
 * sums its own outputs, and meets the others once.
 * B sequences, D d_model, H query heads, G of keys and values, C head_dim, Q = (H + 2G)*C, P cached positions,
 * E experts, K chosen, F width of an expert or dense layer, M of the shared experts. */
#include "kernels.h"
#include "products.h"
#include "router.h"
#include "rows.h"
#include "swiglu.h"

/* A layer's weights by address, in the order of the table's columns; 0 where it has none. */
enum { ATTENTION_NORM, W_QKV, B_QKV, Q_NORM, K_NORM, W_OUT, FEED_FORWARD_NORM, ROUTER, BIAS, W_IN, W_DOWN, SHARED_IN,
       SHARED_DOWN, FIELDS };
#define WEIGHT_OF(layer, field) ((const float *)(intptr_t)table[(layer) * FIELDS + field])
#define WEIGHT(field) WEIGHT_OF(layer, field)

#define AT_ONCE 16  /* rows of a matrix that are multiplied while as many are fetched; measured: 8 and 32 are slower */
#define ACROSS 2048 /* columns of those, so that all of them stay in the second cache */
#define LINE 16     /* floats of a cache line */
#define AHEAD 2048  /* floats of the embedding that are fetched while the ones before are multiplied */

typedef struct { long from, to; } range_t;

/* What a thread reads of a matrix whose rows are n long. */
typedef struct { const float *w; long n; range_t rows, columns; } piece_t;

/* Rows to come, fetched line by line. */
typedef struct { const float *at; long n, rows, lines, line; } ahead_t;

/* The whole vectors of n columns that belong to this thread. */
static inline range_t mine(long n, int threads) {
    long each = whole((n + threads - 1) / threads, LANES), from = at_most(n, thread() * each);
    return (range_t){from, at_most(n, from + each)};
}

/* Ask for floats that will be read soon; beyond an array's end it does no harm. */
static inline void fetch(const float *from, long count) {
    for (long i = 0; i < count; i += LINE) __builtin_prefetch(from + i, 0, 2);
}

static ahead_t coming(const piece_t *p, long row, long column) {
    return (ahead_t){p->w + row * p->n + column, p->n, at_most(AT_ONCE, p->rows.to - row),
                     (at_most(ACROSS, p->columns.to - column) + LINE - 1) / LINE, 0};
}

static inline void fetch_lines(ahead_t *ahead, long count) {
    for (; count > 0 && ahead->rows > 0; count--) {
        __builtin_prefetch(ahead->at + ahead->line * LINE, 0, 2);
        if (++ahead->line < ahead->lines) continue;
        ahead->line = 0;
        ahead->at += ahead->n;
        ahead->rows--;
    }
}

/* Tiles of one row and of two are wider than those of products.h, or each sum would wait for its own last product. */
#define ONE_ROW (8 * LANES)
#define TWO_ROWS (4 * LANES)
#define FOUR(X, i) X(i, 0) X(i, 1) X(i, 2) X(i, 3)
#define EIGHT(X, i) FOUR(X, i) X(i, 4) X(i, 5) X(i, 6) X(i, 7)
#define BEGIN(i, v) vec sum##i##v = splat(0.0f);
#define ADD_PRODUCT(i, v) sum##i##v += s##i * load(w + k * n + v * LANES);
#define END(i, v) store(y##i + v * LANES, add ? load(y##i + v * LANES) + sum##i##v : sum##i##v);

static void one_row(const float *x, const float *w, long n, float *y0, long depth, int add) {
    EIGHT(BEGIN, 0)
    for (long k = 0; k < depth; k++) {
        vec s0 = splat(x[k]);
        EIGHT(ADD_PRODUCT, 0)
    }
    EIGHT(END, 0)
}

static void two_rows(const float *x, long in_row, const float *w, long n, float *y0, float *y1, long depth, int add) {
    FOUR(BEGIN, 0) FOUR(BEGIN, 1)
    for (long k = 0; k < depth; k++) {
        vec s0 = splat(x[k]), s1 = splat(x[in_row + k]);
        FOUR(ADD_PRODUCT, 0) FOUR(ADD_PRODUCT, 1)
    }
    FOUR(END, 0) FOUR(END, 1)
}

/* Columns of the tile to be taken for some rows where so many columns are left. */
static long tile_columns(long rows, long left) {
    if (rows == 1 && left >= ONE_ROW) return ONE_ROW;
    return rows == 2 && left >= TWO_ROWS ? TWO_ROWS : at_most(TILE_N, left);
}

/* out[row] = or += in[row] W over some of W's rows and columns, for `count` rows that lie `in_row` and `out_row` apart.
 * A few rows of W at a time come from the second cache, while those after them, or the first ones of `next`, are on
 * their way there; by itself the processor would not ask for them in time. */
static void stream(const float *in, long in_row, float *out, long out_row, long count, piece_t p, int add,
                   const piece_t *next) {
    float tail[AT_ONCE * TILE_N] __attribute__((aligned(64)));
    long groups = (count + TILE_M - 1) / TILE_M;
    for (long j0 = p.columns.from; j0 < p.columns.to; j0 += ACROSS) {
        long end = at_most(j0 + ACROSS, p.columns.to), strips = (end - j0 + TILE_N - 1) / TILE_N;
        for (long i = p.rows.from; i < p.rows.to; i += AT_ONCE) {
            long deep = at_most(AT_ONCE, p.rows.to - i);
            ahead_t ahead = i + deep < p.rows.to ? coming(&p, i + deep, j0)
                            : end < p.columns.to ? coming(&p, p.rows.from, end)
                            : next               ? coming(next, next->rows.from, next->columns.from)
                                                 : (ahead_t){0};
            long lines = (ahead.rows * ahead.lines + strips - 1) / strips;
            for (long j = j0, columns; j < end; j += columns) {
                const float *w = p.w + i * p.n + j, *x = in + i;
                float *y = out + j;
                long n = p.n;
                int sum = add || i > p.rows.from;
                columns = tile_columns(count, end - j);
                fetch_lines(&ahead, lines * columns / TILE_N + 1);
                if (columns == ONE_ROW) {
                    one_row(x, w, n, y, deep, sum);
                    continue;
                }
                if (columns == TWO_ROWS) {
                    two_rows(x, in_row, w, n, y, y + out_row, deep, sum);
                    continue;
                }
                if (columns < TILE_N) {
                    pack(w, n, 1, deep, columns, tail);
                    w = tail;
                    n = TILE_N;
                }
                for (long group = 0; group < groups; group++) {
                    long row = count * group / groups, some = count * (group + 1) / groups - row;
                    tiles[some](x + row * in_row, in_row, 1, w, n, y + row * out_row, out_row, deep, columns, sum);
                }
            }
        }
    }
}

/* One query over its positions, whose keys and values lie in order; `scores` is scratch, `next` the keys of the head
 * that comes after. */
static void attend_one(const float *q, const float *keys, const float *values, long from, long to, long c, float scale,
                       float *scores, float *y, const float *next) {
    for (long p = from; p < to; p++) {
        fetch(values + p * c, c);
        scores[p - from] = dot(q, keys + p * c, c);
    }
    float sum = exponentials(scores, to - from, scale, largest(scores, to - from) * scale);
    memset(y, 0, sizeof(float) * c);
    for (long p = from; p < to; p++) {
        fetch(next + p * c, c);
        axpy(y, values + p * c, scores[p - from] / sum, c);
    }
}

typedef struct {
    long b, d, heads, kv_heads, c, q, e;
    float eps;
} sizes_t;

/* A head normed and turned; with `whole_rms` above 0 normed by that, as OLMoE norms all heads together. */
static void turn(const float *in, const float *norm, float whole_rms, const float *cosine, const float *sine,
                 float *out, long c, float eps) {
    if (whole_rms == 0) {
        turn_row(in, norm, cosine, sine, out, c, eps);
        return;
    }
    float normed[c];
    for (long i = 0; i < c; i++) normed[i] = in[i] * whole_rms * norm[i];
    turn_row(normed, NULL, cosine, sine, out, c, eps);
}

/* The new position's key and value of one head to the cache, and its query heads' mixtures of values. */
static void one_head(const sizes_t *s, const float *row, const float *q_norm, const float *k_norm, int whole_norm,
                     const float *cosine, const float *sine, float *keys, float *values, float *mixed, long g,
                     long position, long first, float *scores, const float *next) {
    long c = s->c, group = s->heads / s->kv_heads, wide = s->heads * c, narrow = s->kv_heads * c;
    float q_rms = 0, k_rms = 0, turned[c];
    if (whole_norm) {
        q_rms = 1.0f / sqrtf(dot(row, row, wide) / (float)wide + s->eps);
        k_rms = 1.0f / sqrtf(dot(row + wide, row + wide, narrow) / (float)narrow + s->eps);
    }
    turn(row + wide + g * c, whole_norm ? k_norm + g * c : k_norm, k_rms, cosine, sine, keys + position * c, c, s->eps);
    memcpy(values + position * c, row + wide + narrow + g * c, sizeof(float) * c);
    for (long h = g * group; h < (g + 1) * group; h++) {
        turn(row + h * c, whole_norm ? q_norm + h * c : q_norm, q_rms, cosine, sine, turned, c, s->eps);
        attend_one(turned, keys, values, first, position + 1, c, 1.0f / sqrtf((float)c), scores, mixed + h * c,
                   next);
    }
}

/* A row of one layer's experts: of which sequence, to which expert, with which gate. */
typedef struct { long sequence, expert; float gate; } visit_t;

/* Every sequence's choices, sorted by expert so that each expert is read once; logits [B, whole vectors of E]. */
static void route_all(const float *normed, const float *router, const float *bias, float *logits, visit_t *visits,
                      long b, long d, const routing_t *r) {
    long e = r->experts, wide = whole(e, LANES), k = r->top_k, count = 0;
    float scores[wide], values[wide], kept[wide], gates[k], normaliser, total, picked;
    int32_t chosen[k];
    memset(kept, 0, sizeof kept);
    stream(normed, d, logits, wide, b, (piece_t){router, e, {0, d}, {0, e}}, 0, NULL);
    for (long row = 0; row < b; row++) {
        score_row(logits + row * wide, scores, &normaliser, &total, r);
        choose_row(scores, bias, chosen, gates, &picked, kept, values, r);
        for (long i = 0; i < k; i++) {
            long at = count++;
            for (; at > 0 && visits[at - 1].expert > chosen[i]; at--) visits[at] = visits[at - 1];
            visits[at] = (visit_t){row, chosen[i], gates[i]};
        }
    }
}

/* A pair of feed-forward matrices (an expert, the shared ones, a dense layer) and its rows: `count` from `first`. */
typedef struct { const float *w_in, *w_down; long width, first, count; } pair_t;

#define READING 6 /* what reading a weight costs, in rows that are multiplied by it; with 3 to 40 threads wait as long */

static long cost_of_column(const pair_t *pair) { return READING + pair->count; }

static piece_t whole_in(const pair_t *pair, long d) {
    return (piece_t){pair->w_in, 2 * pair->width, {0, d}, {0, 2 * pair->width}};
}

/* What lies of a pair before a cost: whole cache lines of its columns. */
static long columns_before(const pair_t *pair, long cost) {
    if (cost >= pair->width * cost_of_column(pair)) return pair->width;
    return cost <= 0 ? 0 : cost / cost_of_column(pair) / LINE * LINE;
}

/* Adds to `sums` [B, D] what a part of a pair's columns gives for its rows; `some` has room for two rows of D a sequence. */
static void through_pair(const pair_t *pair, range_t part, const visit_t *visits, const float *normed, float *h,
                         float *a, float *sums, float *some, long d, const piece_t *next) {
    long count = pair->count, f = pair->width, first = visits[0].sequence;
    int apart = visits[count - 1].sequence - first >= count; /* its rows do not lie side by side */
    const float *in = normed + first * d;
    float *out = sums + first * d;
    if (apart) {
        for (long row = 0; row < count; row++)
            memcpy(some + row * d, normed + visits[row].sequence * d, sizeof(float) * d);
        in = some;
        out = some + count * d;
    }
    piece_t down = {pair->w_down, d, part, {0, d}};
    if (part.to - part.from == f) {
        stream(in, d, h, 2 * f, count, whole_in(pair, d), 0, &down);
    } else {
        piece_t gate = {pair->w_in, 2 * f, {0, d}, part}, times = gate;
        times.columns = (range_t){part.from + f, part.to + f};
        stream(in, d, h, 2 * f, count, gate, 0, &times);
        stream(in, d, h, 2 * f, count, times, 0, &down);
    }
    for (long row = 0; row < count; row++)
        for (long j = part.from; j < part.to; j += LANES) {
            long lanes = at_most(LANES, part.to - j);
            vec gate = load_some(h + row * 2 * f + j, lanes, 0), times = load_some(h + row * 2 * f + f + j, lanes, 0);
            store_some(a + row * f + j, silu_times(gate, times) * visits[row].gate, lanes);
        }
    stream(a, f, out, d, count, down, !apart, next);
    for (long row = 0; apart && row < count; row++) axpy(sums + visits[row].sequence * d, out + row * d, 1.0f, d);
}

/* Floats of scratch that all threads share, and that each has for itself. */
static long shared_floats(const sizes_t *s, long width, long k) {
    return s->b * (s->d + s->q + s->heads * s->c + 3 * (k + 1) * width);
}

static long own_floats(const sizes_t *s, long length) {
    return whole(s->b * (4 * s->d + whole(s->e, LANES)) + whole(length, LANES), 16);
}

/* Four words' logits of one sequence or two: as many sums at once, since each waits for its own last product. */
static inline __attribute__((always_inline)) void four_dots(const float *x, const float *w, float *out, long d, long v,
                                                            const int sequences) {
    vec sums[2][4];
    for (int s = 0; s < sequences; s++)
        for (int word = 0; word < 4; word++) sums[s][word] = splat(0);
    long i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int word = 0; word < 4; word++) {
            vec weights = load(w + word * d + i);
            IN_REGISTER(weights);
            for (int s = 0; s < sequences; s++) sums[s][word] += load(x + s * d + i) * weights;
        }
    for (int s = 0; s < sequences; s++)
        for (int word = 0; word < 4; word++) {
            float sum = sum_of(sums[s][word]);
            for (long rest = i; rest < d; rest++) sum += x[s * d + rest] * w[word * d + rest];
            out[s * v + word] = sum;
        }
}

long decode_scratch(long b, long d, long heads, long kv_heads, long c, long width, long e, long k, long length,
                    int threads) {
    sizes_t s = {b, d, heads, kv_heads, c, (heads + 2 * kv_heads) * c, e, 0};
    return shared_floats(&s, width, k) + threads * own_floats(&s, length) + 16;
}

/* `table` [layers, FIELDS]; `width` is the largest of F and M, `k` at least 1. Keys and values [L, B, G, length, C] take
 * the new position; `starts` [B] are the first positions that are not padding; logits [B, V]. */
void decode(const int64_t *table, const float *embedding, const float *norm, const float *unembedding,
            const float *cosine, const float *sine, float *keys, float *values, const int64_t *ids,
            const int64_t *starts, float *logits, float *scratch, long layers, long b, long length, long position,
            long d, long heads, long kv_heads, long c, long d_ff, long f, long m, long width, long e, long k,
            long groups, long kept_groups, long v, long window, long full_layers, int whole_norm, int sigmoid,
            int normalize, float scaling, float eps, int threads) {
    routing_t routing = {e, k, groups, kept_groups, sigmoid, normalize, scaling, 0, 0};
    sizes_t s = {b, d, heads, kv_heads, c, (heads + 2 * kv_heads) * c, e, eps};
    long rows = b * (k + 1); /* of the chosen experts, and of the shared ones or a dense layer */
    float *x = scratch, *qkv = x + b * d, *mixed = qkv + b * s.q, *h = mixed + b * heads * c, *a = h + rows * 2 * width;
    for (long row = 0; row < b; row++) memcpy(x + row * d, embedding + ids[row] * d, sizeof(float) * d);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *owned = scratch + shared_floats(&s, width, k), *sums = owned + thread() * own_floats(&s, length);
        float *normed = sums + b * d, *some = normed + b * d;
        float *routed = some + 2 * b * d, *scores = routed + b * whole(e, LANES);
        visit_t visits[rows];
        pair_t pairs[rows];
        range_t columns = mine(d, threads), projected = mine(s.q, threads);
        for (long layer = 0; layer < layers; layer++) {
            for (long row = 0; row < b; row++) norm_row(x + row * d, WEIGHT(ATTENTION_NORM), normed + row * d, d, eps);
            piece_t w_qkv = {WEIGHT(W_QKV), s.q, {0, d}, projected}, w_out = {WEIGHT(W_OUT), d, {0, heads * c}, columns};
            stream(normed, d, qkv, s.q, b, w_qkv, 0, &w_out);
            if (WEIGHT(B_QKV))
                for (long row = 0; row < b; row++)
                    axpy(qkv + row * s.q + projected.from, WEIGHT(B_QKV) + projected.from, 1.0f,
                         projected.to - projected.from);
#pragma omp barrier
            long seen = window && layer >= full_layers ? position + 1 - window : 0;
#pragma omp for schedule(static)
            for (long bg = 0; bg < b * kv_heads; bg++) {
                long row = bg / kv_heads, first = starts[row] > seen ? starts[row] : seen;
                long place = (layer * b * kv_heads + bg) * length * c;
                one_head(&s, qkv + row * s.q, WEIGHT(Q_NORM), WEIGHT(K_NORM), whole_norm, cosine, sine, keys + place,
                         values + place, mixed + row * heads * c, bg % kv_heads, position, first > 0 ? first : 0,
                         scores, keys + place + length * c);
            }
            stream(mixed, heads * c, x, d, b, w_out, 1, NULL);
#pragma omp barrier
            for (long row = 0; row < b; row++)
                norm_row(x + row * d, WEIGHT(FEED_FORWARD_NORM), normed + row * d, d, eps);
            long used = 0, count = 0, total = 0;
            if (WEIGHT(ROUTER)) {
                route_all(normed, WEIGHT(ROUTER), WEIGHT(BIAS), routed, visits, b, d, &routing);
                for (; used < b * k; used++) {
                    long expert = visits[used].expert;
                    if (!used || expert != visits[used - 1].expert)
                        pairs[count++] = (pair_t){WEIGHT(W_IN) + expert * d * 2 * f, WEIGHT(W_DOWN) + expert * f * d, f,
                                                  used, 0};
                    pairs[count - 1].count++;
                }
                if (m) pairs[count++] = (pair_t){WEIGHT(SHARED_IN), WEIGHT(SHARED_DOWN), m, used, b};
            } else {
                pairs[count++] = (pair_t){WEIGHT(W_IN), WEIGHT(W_DOWN), d_ff, used, b};
            }
            for (long row = 0; row < b; row++) visits[used + row] = (visit_t){row, 0, 1.0f};
            for (long i = 0; i < count; i++) total += pairs[i].width * cost_of_column(&pairs[i]);
            piece_t following = {0}; /* what this thread reads after its last pair */
            if (layer + 1 < layers)
                following = (piece_t){WEIGHT_OF(layer + 1, W_QKV), s.q, {0, d}, projected};
            long from = total * thread() / threads, to = total * (thread() + 1) / threads;
            memset(sums, 0, sizeof(float) * b * d);
            for (const pair_t *pair = pairs; pair < pairs + count; pair++) {
                range_t part = {columns_before(pair, from), columns_before(pair, to)};
                from -= pair->width * cost_of_column(pair);
                to -= pair->width * cost_of_column(pair);
                if (part.from >= part.to) continue;
                piece_t after = to > 0 && pair + 1 < pairs + count ? whole_in(pair + 1, d) : following;
                long first = pair->first;
                through_pair(pair, part, visits + first, normed, h + first * 2 * width, a + first * width, sums, some, d,
                             &after);
            }
#pragma omp barrier
            for (int t = 0; t < threads; t++)
                for (long row = 0; row < b; row++)
                    axpy(x + row * d + columns.from, owned + t * own_floats(&s, length) + row * d + columns.from, 1.0f,
                         columns.to - columns.from);
#pragma omp barrier
        }
        for (long row = 0; row < b; row++) norm_row(x + row * d, norm, normed + row * d, d, eps);
#pragma omp for schedule(static)
        for (long word = 0; word < v / 4; word++)
            for (long row = 0; row < b; row += 2) {
                const float *words = unembedding + 4 * word * d;
                long part = whole(4 * d * at_most(2, b - row) / b, LINE); /* of what is fetched ahead */
                fetch(words + whole(AHEAD, 4 * d) + row * 4 * d / b, part);
                if (row + 1 < b) four_dots(normed + row * d, words, logits + row * v + 4 * word, d, v, 2);
                else four_dots(normed + row * d, words, logits + row * v + 4 * word, d, v, 1);
            }
#pragma omp single
        for (long word = v / 4 * 4; word < v; word++)
            for (long row = 0; row < b; row++) logits[row * v + word] = dot(normed + row * d, unembedding + word * d, d);
    }
}
