/* One token of every sequence through the whole model. Twin: Transformer.forward with a cache.
 *
 * What costs is reading weights, so each is read once in the order in which it lies, by rows; all threads share every
 * matrix by columns and meet after it, but an expert is one thread's alone as long as every thread has as many.
 * B sequences, D d_model, H query heads, G of keys and values, C head_dim, Q = (H + 2G)*C, P cached positions,
 * E experts, K chosen, F width of an expert or dense layer, M of the shared experts. */
#include "kernels.h"
#include "router.h"
#include "rows.h"
#include "swiglu.h"

/* A layer's weights by address, in the order of the table's columns; 0 where it has none. */
enum { ATTENTION_NORM, W_QKV, B_QKV, Q_NORM, K_NORM, W_OUT, FEED_FORWARD_NORM, ROUTER, BIAS, W_IN, W_DOWN, SHARED_IN,
       SHARED_DOWN, FIELDS };
#define WEIGHT(field) ((const float *)(intptr_t)table[layer * FIELDS + field])

#define WIDE 512 /* columns whose sums of eight rows stay in the fastest cache */
#define AHEAD 2048 /* floats that are fetched while the ones before are multiplied; measured: 1024 to 4096 are alike */
#define LINE 16    /* floats of a cache line */

typedef struct { long from, to; } range_t;

/* The whole vectors of n columns that belong to this thread. */
static inline range_t mine(long n, int threads) {
    long each = whole((n + threads - 1) / threads, LANES), from = at_most(n, thread() * each);
    return (range_t){from, at_most(n, from + each)};
}

/* Ask for floats that will be read soon, or the processor's own prefetching loses its way among several rows; beyond
 * an array's end it does no harm. */
static inline void fetch(const float *from, long count) {
    for (long i = 0; i < count; i += LINE) __builtin_prefetch(from + i, 0, 2);
}

/* out[row] += scale[row] * in[row] W over some columns, for a few rows; W's rows are read four at a time and those
 * further on are fetched bit by bit between the rows, then the beginning of `next`, which whoever comes reads whole. */
static void stream(const float *const *in, float *const *out, const float *scale, const float *w, long n, long rows,
                   long k, range_t columns, const float *next) {
    long far = whole((AHEAD + n - 1) / n, 4);
    for (long j0 = columns.from; j0 < columns.to; j0 += WIDE) {
        long count = at_most(WIDE, columns.to - j0);
        for (long i = 0; i < k; i += 4) {
            long deep = at_most(4, k - i), fetched = 0;
            const float *w0 = w + i * n + j0, *w1 = w0 + (deep > 1) * n, *w2 = w0 + (deep > 2) * 2 * n,
                        *w3 = w0 + (deep > 3) * 3 * n;
            const float *ahead = i + far < k ? w0 + far * n : next ? next + (i + far - k) * n + j0 : NULL;
            for (long row = 0; row < rows; row += 2) {
                long until = row + 2 < rows ? whole(count * (row + 2) / rows, LINE) : count;
                for (long r = 0; ahead && r < deep; r++) fetch(ahead + r * n + fetched, until - fetched);
                fetched = until;
                float x[2][4] = {{0}};
                for (long two = 0; two < 2 && row + two < rows; two++)
                    for (long r = 0; r < deep; r++)
                        x[two][r] = (scale ? scale[row + two] : 1.0f) * in[row + two][i + r];
                float *restrict y = out[row] + j0;
                if (row + 1 == rows) {
                    for (long j = 0; j < count; j++)
                        y[j] += x[0][0] * w0[j] + x[0][1] * w1[j] + x[0][2] * w2[j] + x[0][3] * w3[j];
                    break;
                }
                float *restrict z = out[row + 1] + j0;
                for (long j = 0; j < count; j++) {
                    y[j] += x[0][0] * w0[j] + x[0][1] * w1[j] + x[0][2] * w2[j] + x[0][3] * w3[j];
                    z[j] += x[1][0] * w0[j] + x[1][1] * w1[j] + x[1][2] * w2[j] + x[1][3] * w3[j];
                }
            }
        }
    }
}

static void zero(float *const *out, long rows, range_t columns) {
    for (long row = 0; row < rows; row++)
        memset(out[row] + columns.from, 0, sizeof(float) * (columns.to - columns.from));
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
    long b, d, heads, kv_heads, c, q;
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

/* Every sequence's choices, sorted by expert so that each expert is read once. */
static void route_all(const float *normed, const float *router, const float *bias, visit_t *visits, long b, long d,
                      const routing_t *r) {
    long e = r->experts, wide = whole(e, LANES), k = r->top_k, count = 0;
    float logits[wide], scores[wide], values[wide], kept[wide], gates[k], normaliser, total, picked;
    int32_t chosen[k];
    for (long row = 0; row < b; row++) {
        const float *in = normed + row * d;
        float *out = logits;
        memset(logits, 0, sizeof logits);
        memset(kept, 0, sizeof kept);
        stream(&in, &out, NULL, router, e, 1, d, (range_t){0, e}, NULL);
        score_row(logits, scores, &normaliser, &total, r);
        choose_row(scores, bias, chosen, gates, &picked, kept, values, r);
        for (long i = 0; i < k; i++) {
            long at = count++;
            for (; at > 0 && visits[at - 1].expert > chosen[i]; at--) visits[at] = visits[at - 1];
            visits[at] = (visit_t){row, chosen[i], gates[i]};
        }
    }
}

/* Rows of a feed-forward matrix pair (one expert, the shared ones, a dense layer): h and a of the columns `ups`. */
static void up(const float *const *in, float *const *h, float *const *a, const float *w_in, long rows, long d, long f,
               range_t ups, const float *next) {
    range_t second = {ups.from + f, ups.to + f};
    if (ups.to - ups.from == f) { /* both halves at once: rows in one piece */
        zero(h, rows, (range_t){0, 2 * f});
        stream(in, h, NULL, w_in, 2 * f, rows, d, (range_t){0, 2 * f}, next);
    } else {
        zero(h, rows, ups);
        zero(h, rows, second);
        stream(in, h, NULL, w_in, 2 * f, rows, d, ups, NULL);
        stream(in, h, NULL, w_in, 2 * f, rows, d, second, NULL);
    }
    for (long row = 0; row < rows; row++)
        for (long j = ups.from; j < ups.to; j += LANES) {
            long some = at_most(LANES, ups.to - j);
            vec gate = load_some(h[row] + j, some, 0), times = load_some(h[row] + f + j, some, 0);
            store_some(a[row] + j, silu_times(gate, times), some);
        }
}

/* Floats of scratch that all threads share, and that each has for itself. */
static long shared_floats(const sizes_t *s, long width, long k) {
    return s->b * (s->d + s->q + s->heads * s->c + 3 * k * width);
}

static long own_floats(const sizes_t *s, long length) { return whole(2 * s->b * s->d + whole(length, LANES), 16); }

/* Four words' logits of one sequence: four sums at once, since each waits for its own last product. */
static void four_dots(const float *x, const float *w, float *out, long d) {
    vec sums[4] = {splat(0), splat(0), splat(0), splat(0)};
    long i = 0;
    for (; i + LANES <= d; i += LANES)
        for (int word = 0; word < 4; word++) sums[word] += load(x + i) * load(w + word * d + i);
    for (int word = 0; word < 4; word++) {
        out[word] = sum_of(sums[word]);
        for (long rest = i; rest < d; rest++) out[word] += x[rest] * w[word * d + rest];
    }
}

long decode_scratch(long b, long d, long heads, long kv_heads, long c, long width, long k, long length, int threads) {
    sizes_t s = {b, d, heads, kv_heads, c, (heads + 2 * kv_heads) * c, 0};
    return shared_floats(&s, width, k) + threads * own_floats(&s, length) + 16;
}

/* `table` [layers, FIELDS]; `width` is the largest of F and M, `k` at least 1. Keys and values [L, B, G, length, C] take
 * the new position; `starts` [B] are the first positions that are not padding; logits [B, V]. */
void decode(const int64_t *table, const float *embedding, const float *norm, const float *unembedding,
            const float *cosine, const float *sine, float *keys, float *values, const int64_t *ids,
            const int64_t *starts, float *logits, float *scratch, long layers, long b, long length, long position,
            long d, long heads, long kv_heads, long c, long d_ff, long f, long m, long width, long e, long k, long v,
            long window, long full_layers, int whole_norm, int sigmoid, int normalize, float scaling, float eps,
            int threads) {
    routing_t routing = {e, k, sigmoid, normalize, scaling, 0, 0};
    sizes_t s = {b, d, heads, kv_heads, c, (heads + 2 * kv_heads) * c, eps};
    long rows = b * k;
    float *x = scratch, *qkv = x + b * d, *mixed = qkv + b * s.q, *h = mixed + b * heads * c, *a = h + rows * 2 * width;
    for (long row = 0; row < b; row++) memcpy(x + row * d, embedding + ids[row] * d, sizeof(float) * d);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *owned = scratch + shared_floats(&s, width, k), *sums = owned + thread() * own_floats(&s, length);
        float *normed = sums + b * d, *scores = normed + b * d;
        visit_t visits[rows];
        const float *in_rows[rows], *a_rows[rows], *normed_rows[b], *mixed_rows[b];
        float *h_rows[rows], *up_rows[rows], *out_rows[rows], *sum_rows[rows], *x_rows[b], *qkv_rows[b], gates[rows];
        for (long row = 0; row < b; row++) {
            normed_rows[row] = normed + row * d;
            mixed_rows[row] = mixed + row * heads * c;
            x_rows[row] = x + row * d;
            qkv_rows[row] = qkv + row * s.q;
        }
        for (long row = 0; row < rows; row++) {
            h_rows[row] = h + row * 2 * width;
            a_rows[row] = up_rows[row] = a + row * width;
        }
        range_t columns = mine(d, threads), projected = mine(s.q, threads);
        for (long layer = 0; layer < layers; layer++) {
            for (long row = 0; row < b; row++) norm_row(x + row * d, WEIGHT(ATTENTION_NORM), normed + row * d, d, eps);
            zero(qkv_rows, b, projected);
            stream(normed_rows, qkv_rows, NULL, WEIGHT(W_QKV), s.q, b, d, projected, NULL);
            if (WEIGHT(B_QKV))
                for (long row = 0; row < b; row++)
                    axpy(qkv_rows[row] + projected.from, WEIGHT(B_QKV) + projected.from, 1.0f,
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
            stream(mixed_rows, x_rows, NULL, WEIGHT(W_OUT), d, b, heads * c, columns, NULL);
#pragma omp barrier
            for (long row = 0; row < b; row++)
                norm_row(x + row * d, WEIGHT(FEED_FORWARD_NORM), normed + row * d, d, eps);
            if (!WEIGHT(ROUTER)) {
                up(normed_rows, h_rows, up_rows, WEIGHT(W_IN), b, d, d_ff, mine(d_ff, threads), NULL);
#pragma omp barrier
                stream(a_rows, x_rows, NULL, WEIGHT(W_DOWN), d, b, d_ff, columns, NULL);
#pragma omp barrier
                continue;
            }
            route_all(normed, WEIGHT(ROUTER), WEIGHT(BIAS), visits, b, d, &routing);
            range_t ups = mine(f, threads), all_ups = {0, f}, all_columns = {0, d};
            long groups = 0, firsts[rows + 1];
            for (long row = 0; row < rows; row++) {
                in_rows[row] = normed + visits[row].sequence * d;
                out_rows[row] = x + visits[row].sequence * d;
                sum_rows[row] = sums + visits[row].sequence * d;
                gates[row] = visits[row].gate;
                if (!row || visits[row].expert != visits[row - 1].expert) firsts[groups++] = row;
            }
            firsts[groups] = rows;
            long alone = groups / threads * threads;
            memset(sums, 0, sizeof(float) * b * d);
            for (long group = thread(); group < alone; group += threads) {
                long from = firsts[group], count = firsts[group + 1] - from, expert = visits[from].expert;
                const float *down = WEIGHT(W_DOWN) + expert * f * d, *after = NULL;
                if (group + threads < alone)
                    after = WEIGHT(W_IN) + visits[firsts[group + threads]].expert * d * 2 * f;
                up(in_rows + from, h_rows + from, up_rows + from, WEIGHT(W_IN) + expert * d * 2 * f, count, d, f,
                   all_ups, down);
                stream(a_rows + from, sum_rows + from, gates + from, down, d, count, f, all_columns,
                       after);
            }
            for (long group = alone; group < groups; group++) {
                long from = firsts[group], count = firsts[group + 1] - from, expert = visits[from].expert;
                up(in_rows + from, h_rows + from, up_rows + from, WEIGHT(W_IN) + expert * d * 2 * f, count, d, f, ups,
                   NULL);
            }
#pragma omp barrier
            for (long group = alone; group < groups; group++) {
                long from = firsts[group], count = firsts[group + 1] - from, expert = visits[from].expert;
                stream(a_rows + from, out_rows + from, gates + from, WEIGHT(W_DOWN) + expert * f * d, d, count, f,
                       columns, NULL);
            }
            for (int t = 0; alone && t < threads; t++)
                for (long row = 0; row < b; row++)
                    axpy(x + row * d + columns.from, owned + t * own_floats(&s, length) + row * d + columns.from, 1.0f,
                         columns.to - columns.from);
#pragma omp barrier
            if (m) { /* `normed` is of before the experts, as it should be */
                up(normed_rows, h_rows, up_rows, WEIGHT(SHARED_IN), b, d, m, mine(m, threads), NULL);
#pragma omp barrier
                stream(a_rows, x_rows, NULL, WEIGHT(SHARED_DOWN), d, b, m, columns, NULL);
#pragma omp barrier
            }
        }
        for (long row = 0; row < b; row++) norm_row(x + row * d, norm, normed + row * d, d, eps);
#pragma omp for schedule(static)
        for (long word = 0; word < v / 4; word++)
            for (long row = 0; row < b; row++) {
                const float *words = unembedding + 4 * word * d;
                long part = whole(4 * d / b, LINE); /* of what is fetched ahead */
                fetch(words + whole(AHEAD, 4 * d) + row * part, part);
                four_dots(normed + row * d, words, logits + row * v + 4 * word, d);
            }
#pragma omp single
        for (long word = v / 4 * 4; word < v; word++)
            for (long row = 0; row < b; row++) logits[row * v + word] = dot(normed + row * d, unembedding + word * d, d);
    }
}
