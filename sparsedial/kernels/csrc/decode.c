/* One token of every sequence through the whole model. Twin: Transformer.forward with a cache.
 *
 * What costs is reading layer, so each is read once in the order in which it lies, by rows. The threads share the
 * matrices of attention by columns and meet after each. The pairs of feed-forward matrices that a step needs (the
 * experts visited and the shared ones, or a dense layer) stand in line; every thread takes an equal piece of that,
 * sums its own outputs, and meets the others once.
 * B sequences, D d_model, H query heads, G of keys and values, C head_dim, Q = (H + 2G)*C, P cached positions,
 * E experts, K chosen, F width of an expert or dense layer, M of the shared experts; of latent attention R rank of the
 * latent, A of the query, U unturned and W turned channels of a query head, V of a value. */
#include "kernels.h"
#include "products.h"
#include "router.h"
#include "rows.h"
#include "swiglu.h"

typedef struct decode_sizes sizes_t;
typedef struct decode_layer layer_t;

#define LATENT_EPS 1e-6f /* as model/attention.py */
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

/* What a layer's attention reads and writes; all threads share it. */
typedef struct {
    const float *cosine, *sine; /* of the new position */
    float *keys, *values; /* this layer's part of the cache */
    const int64_t *starts;
    long position, seen; /* the new one, and the first that a window leaves */
    float *x, *q, *mixed; /* [B, D], [B, query_floats], [B, H, C or V] */
    float eps, scale;
    int threads;
} step_t;

static long query_floats(const sizes_t *s) {
    return s->rank ? s->query_rank + s->rank + s->turned + s->heads * s->c : (s->heads + 2 * s->kv_heads) * s->c;
}

static long mixed_floats(const sizes_t *s) { return s->heads * (s->rank ? s->v : s->c); }

static long first_seen(const step_t *at, long row) {
    long first = at->starts[row] > at->seen ? at->starts[row] : at->seen;
    return first > 0 ? first : 0;
}

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
static void one_head(const sizes_t *s, const step_t *at, const layer_t *layer, long row, long g, float *scores) {
    long c = s->c, group = s->heads / s->kv_heads, wide = s->heads * c, narrow = s->kv_heads * c;
    const float *q = at->q + row * query_floats(s), *q_norm = layer->q_norm, *k_norm = layer->k_norm;
    float *keys = at->keys + (row * s->kv_heads + g) * s->length * c;
    float *values = at->values + (row * s->kv_heads + g) * s->length * c, q_rms = 0, k_rms = 0, turned[c];
    int whole_norm = s->whole_norm;
    if (whole_norm) {
        q_rms = 1.0f / sqrtf(dot(q, q, wide) / (float)wide + at->eps);
        k_rms = 1.0f / sqrtf(dot(q + wide, q + wide, narrow) / (float)narrow + at->eps);
    }
    turn(q + wide + g * c, whole_norm ? k_norm + g * c : k_norm, k_rms, at->cosine, at->sine, keys + at->position * c, c,
         at->eps);
    memcpy(values + at->position * c, q + wide + narrow + g * c, sizeof(float) * c);
    for (long h = g * group; h < (g + 1) * group; h++) {
        turn(q + h * c, whole_norm ? q_norm + h * c : q_norm, q_rms, at->cosine, at->sine, turned, c, at->eps);
        attend_one(turned, keys, values, first_seen(at, row), at->position + 1, c, at->scale, scores,
                   at->mixed + row * wide + h * c, keys + s->length * c);
    }
}

/* By all threads: from the normed stream to the heads' mixtures. `w_out` is what is read next. */
static void grouped_attention(const sizes_t *s, const step_t *at, const layer_t *layer, const float *normed,
                              float *scores, const piece_t *w_out) {
    long q = query_floats(s);
    range_t columns = mine(q, at->threads);
    stream(normed, s->d, at->q, q, s->sequences, (piece_t){layer->w_qkv, q, {0, s->d}, columns}, 0, w_out);
    if (layer->b_qkv)
        for (long row = 0; row < s->sequences; row++)
            axpy(at->q + row * q + columns.from, layer->b_qkv + columns.from, 1.0f, columns.to - columns.from);
#pragma omp barrier
#pragma omp for schedule(static)
    for (long bg = 0; bg < s->sequences * s->kv_heads; bg++)
        one_head(s, at, layer, bg / s->kv_heads, bg % s->kv_heads, scores);
}

/* One head's query brought to the latent, its mixture of the cached latents, and that as the head's value. The cache
 * holds latents [P, R] as keys and the turned keys [P, W] that all heads share as values; `own` is scratch of 2R + W. */
static void latent_head(const sizes_t *s, const step_t *at, const float *up, const float *q, long row, long h,
                        float *scores, float *own) {
    long r = s->rank, u = s->unturned, w = s->turned, line = s->heads * (u + s->v), from = first_seen(at, row);
    const float *latents = at->keys + row * s->length * r, *keys = at->values + row * s->length * w;
    const float *mine = up + h * (u + s->v);
    float *query = own, *mix = own + r, *turned = mix + r, *y = at->mixed + (row * s->heads + h) * s->v;
    for (long i = 0; i < r; i++) query[i] = dot(q, mine + i * line, u);
    turn_row(q + u, NULL, at->cosine, at->sine, turned, w, 0);
    long count = at->position + 1 - from;
    for (long p = 0; p < count; p++)
        scores[p] = dot(query, latents + (from + p) * r, r) + dot(turned, keys + (from + p) * w, w);
    float sum = exponentials(scores, count, at->scale, largest(scores, count) * at->scale);
    memset(mix, 0, sizeof(float) * r);
    for (long p = 0; p < count; p++) axpy(mix, latents + (from + p) * r, scores[p] / sum, r);
    memset(y, 0, sizeof(float) * s->v);
    for (long i = 0; i < r; i++) axpy(y, mine + u + i * line, mix[i], s->v);
}

/* As grouped_attention; `own` is scratch of [B, A] and what a head takes. Source: DeepSeek-V2, section 2.1 */
static void latent_attention(const sizes_t *s, const step_t *at, const layer_t *layer, const float *normed,
                             float *scores, float *own, const piece_t *w_out) {
    long a = s->query_rank, r = s->rank, w = s->turned, all = s->heads * s->c, line = query_floats(s);
    piece_t query = {layer->query, all, {0, a ? a : s->d}, mine(all, at->threads)};
    const float *in = normed;
    stream(normed, s->d, at->q + a, line, s->sequences, (piece_t){layer->latent, r + w, {0, s->d}, mine(r + w, at->threads)}, 0,
           &query);
    if (a) {
        stream(normed, s->d, at->q, line, s->sequences, (piece_t){layer->query_down, a, {0, s->d}, mine(a, at->threads)}, 0,
               &query);
#pragma omp barrier
        for (long row = 0; row < s->sequences; row++)
            norm_row(at->q + row * line, layer->query_norm, own + row * a, a, LATENT_EPS);
        in = own;
    }
    stream(in, a ? a : s->d, at->q + a + r + w, line, s->sequences, query, 0, w_out);
#pragma omp barrier
#pragma omp for schedule(static)
    for (long row = 0; row < s->sequences; row++) {
        const float *latent = at->q + row * line + a;
        norm_row(latent, layer->latent_norm, at->keys + (row * s->length + at->position) * r, r, LATENT_EPS);
        turn_row(latent + r, NULL, at->cosine, at->sine, at->values + (row * s->length + at->position) * w, w, 0);
    }
#pragma omp for schedule(static)
    for (long bh = 0; bh < s->sequences * s->heads; bh++) {
        long row = bh / s->heads, h = bh % s->heads;
        latent_head(s, at, layer->up, at->q + row * line + a + r + w + h * s->c, row, h, scores, own + s->sequences * a);
    }
}

/* What a layer reads first of all. */
static piece_t first_read(const sizes_t *s, const layer_t *layer, int threads) {
    long n = s->rank ? s->rank + s->turned : query_floats(s);
    return (piece_t){s->rank ? layer->latent : layer->w_qkv, n, {0, s->d}, mine(n, threads)};
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
static long shared_floats(const sizes_t *s) {
    return s->sequences * (s->d + query_floats(s) + mixed_floats(s) + 3 * (s->k + 1) * s->width);
}

static long own_floats(const sizes_t *s) {
    long latent = s->sequences * s->query_rank + 2 * s->rank + s->turned;
    return whole(s->sequences * (4 * s->d + whole(s->e, LANES)) + whole(s->length, LANES) + latent, 16);
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

long decode_scratch(const struct decode_sizes *sizes, int threads) {
    return shared_floats(sizes) + threads * own_floats(sizes) + 16;
}

/* `sizes` with `width` the largest of F and M and `k` at least 1. The cache [L, B, G, length, C], twice, or latents
 * [L, B, length, R] and turned keys [L, B, length, W], takes the new position; `starts` [B] are the first positions that
 * are not padding; logits [B, words]. */
void decode(const struct decode_sizes *sizes, const struct decode_layer *layers, const float *embedding,
            const float *norm, const float *unembedding, const float *cosine, const float *sine, float *keys,
            float *values, const int64_t *ids, const int64_t *starts, float *logits, float *scratch, long position,
            int threads) {
    const sizes_t *s = sizes;
    long b = s->sequences, d = s->d, k = s->k, f = s->f, words = s->words, wide = mixed_floats(s);
    long turned = s->rank ? s->turned : s->c;
    long kept = s->sequences * (s->rank ? 1 : s->kv_heads) * s->length; /* positions of a layer, of all heads */
    routing_t routing = {s->e, k, s->groups, s->kept_groups, s->sigmoid, s->normalize, s->scaling, 0, 0};
    long rows = b * (k + 1); /* of the chosen experts, and of the shared ones or a dense layer */
    float *x = scratch, *q = x + b * d, *mixed = q + b * query_floats(s), *h = mixed + b * wide;
    float *a = h + rows * 2 * s->width;
    for (long row = 0; row < b; row++) memcpy(x + row * d, embedding + ids[row] * d, sizeof(float) * d);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *owned = scratch + shared_floats(s), *sums = owned + thread() * own_floats(s);
        float *normed = sums + b * d, *some = normed + b * d;
        float *routed = some + 2 * b * d, *scores = routed + b * whole(s->e, LANES);
        float *latent = scores + whole(s->length, LANES);
        visit_t visits[rows];
        pair_t pairs[rows];
        range_t columns = mine(d, threads);
        for (long number = 0; number < s->layers; number++) {
            const layer_t *layer = layers + number;
            step_t at = {
                .cosine = cosine + position * turned, .sine = sine + position * turned, .starts = starts, .position = position,
                .keys = keys + number * kept * (s->rank ? s->rank : s->c),
                .values = values + number * kept * (s->rank ? s->turned : s->c),
                .seen = s->window && number >= s->full_layers ? position + 1 - s->window : 0,
                .x = x, .q = q, .mixed = mixed, .eps = s->eps, .scale = s->scale, .threads = threads,
            };
            piece_t w_out = {layer->w_out, d, {0, wide}, columns};
            for (long row = 0; row < b; row++) norm_row(x + row * d, layer->attention_norm, normed + row * d, d, s->eps);
            if (s->rank) latent_attention(s, &at, layer, normed, scores, latent, &w_out);
            else grouped_attention(s, &at, layer, normed, scores, &w_out);
            stream(mixed, wide, x, d, b, w_out, 1, NULL);
#pragma omp barrier
            for (long row = 0; row < b; row++)
                norm_row(x + row * d, layer->feed_forward_norm, normed + row * d, d, s->eps);
            long used = 0, count = 0, total = 0;
            if (layer->router) {
                route_all(normed, layer->router, layer->bias, routed, visits, b, d, &routing);
                for (; used < b * k; used++) {
                    long expert = visits[used].expert;
                    if (!used || expert != visits[used - 1].expert)
                        pairs[count++] = (pair_t){layer->w_in + expert * d * 2 * f, layer->w_down + expert * f * d, f,
                                                  used, 0};
                    pairs[count - 1].count++;
                }
                if (s->m) pairs[count++] = (pair_t){layer->shared_in, layer->shared_down, s->m, used, b};
            } else {
                pairs[count++] = (pair_t){layer->w_in, layer->w_down, s->d_ff, used, b};
            }
            for (long row = 0; row < b; row++) visits[used + row] = (visit_t){row, 0, 1.0f};
            for (long i = 0; i < count; i++) total += pairs[i].width * cost_of_column(&pairs[i]);
            piece_t following = number + 1 < s->layers ? first_read(s, layer + 1, threads) : (piece_t){0};
            long from = total * thread() / threads, to = total * (thread() + 1) / threads;
            memset(sums, 0, sizeof(float) * b * d);
            for (const pair_t *pair = pairs; pair < pairs + count; pair++) {
                range_t part = {columns_before(pair, from), columns_before(pair, to)};
                from -= pair->width * cost_of_column(pair);
                to -= pair->width * cost_of_column(pair);
                if (part.from >= part.to) continue;
                piece_t after = to > 0 && pair + 1 < pairs + count ? whole_in(pair + 1, d) : following;
                long first = pair->first;
                through_pair(pair, part, visits + first, normed, h + first * 2 * s->width, a + first * s->width, sums,
                             some, d, &after);
            }
#pragma omp barrier
            for (int t = 0; t < threads; t++)
                for (long row = 0; row < b; row++)
                    axpy(x + row * d + columns.from, owned + t * own_floats(s) + row * d + columns.from, 1.0f,
                         columns.to - columns.from);
#pragma omp barrier
        }
        for (long row = 0; row < b; row++) norm_row(x + row * d, norm, normed + row * d, d, s->eps);
#pragma omp for schedule(static)
        for (long word = 0; word < words / 4; word++)
            for (long row = 0; row < b; row += 2) {
                const float *four = unembedding + 4 * word * d;
                long part = whole(4 * d * at_most(2, b - row) / b, LINE); /* of what is fetched ahead */
                fetch(four + whole(AHEAD, 4 * d) + row * 4 * d / b, part);
                if (row + 1 < b) four_dots(normed + row * d, four, logits + row * words + 4 * word, d, words, 2);
                else four_dots(normed + row * d, four, logits + row * words + 4 * word, d, words, 1);
            }
#pragma omp single
        for (long word = words / 4 * 4; word < words; word++)
            for (long row = 0; row < b; row++)
                logits[row * words + word] = dot(normed + row * d, unembedding + word * d, d);
    }
}
