/* A dense feed-forward part of which only some neurons take part. To be called by every thread of a parallel region.
 * Twin: Threshold.activations in model/gates.py.
 *
 * All gates are read. Ups (rows of their own) are read of neurons that any row has open: whose |silu(gate)| times weight
 * reaches a threshold. Downs are read of those whose activation times norm then reaches another one for any row. Each
 * thread takes as many open neurons as the others and sums its own outputs.
 * B rows, each of another sequence, D d_model, F width of the layer. */
#pragma once
#include "decode_feed_forward.h"

#define INLINE inline __attribute__((always_inline))
#define NEURONS 4 /* multiplied at once, while as many rows of what comes next are fetched */

/* What this thread's gates let through to `a` [B, F], 0 where they are not open far enough; lists the neurons that any
 * row has open and returns their number. */
static long open_gates(const step_t *at, const layer_t *layer, const float *normed, range_t columns, int32_t *open) {
    long b = at->count, d = at->sizes->d, f = layer->width, count = 0;
    vec least = splat(layer->least_gate);
    stream(normed, d, at->h, f, b, (piece_t){layer->w_in, 2 * f, {0, d}, columns}, 0, NULL);
    for (long j = columns.from; j < columns.to; j += LANES) {
        long lanes = at_most(LANES, columns.to - j);
        vec weights = load_some(layer->gate_weights + j, lanes, 0);
        ivec any = {0};
        for (long row = 0; row < b; row++) {
            vec gate = load_some(at->h + row * f + j, lanes, 0), silu = silu_times(gate, splat(1.0f));
            vec size = (vec)((ivec)silu & 0x7fffffff);
            ivec reaches = size * weights >= least;
            store_some(at->a + row * f + j, choose(reaches, silu, splat(0.0f)), lanes);
            any |= reaches;
        }
        for (long i = 0; i < lanes; i++) {
            open[count] = (int32_t)(j + i);
            count -= any[i]; /* -1 where open */
        }
    }
    return count;
}

/* The floats of a vector that lie in a row; called with a constant where all do. */
static INLINE vec part(const float *p, const long lanes) {
    return lanes == LANES ? load(p) : load_some(p, lanes, 0);
}

static INLINE void fetch_line(const float *const *next, long i) {
    for (int n = 0; next && i % LINE == 0 && n < NEURONS; n++) __builtin_prefetch(next[n] + i, 0, 2);
}

static INLINE void add_products(vec sums[2][NEURONS], const float *x, const float *const *rows, long d, long i,
                                const long lanes, const int count) {
    for (int n = 0; n < NEURONS; n++) {
        vec weights = part(rows[n] + i, lanes);
        for (int s = 0; s < count; s++) sums[s][n] += part(x + s * d + i, lanes) * weights;
    }
}

/* Products of one row or two with rows of weights, while those in `next` are fetched. */
static INLINE void some_dots(const float *x, const float *const *rows, const float *const *next, float *out, long d,
                             const int count) {
    vec sums[2][NEURONS];
    for (int s = 0; s < count; s++)
        for (int n = 0; n < NEURONS; n++) sums[s][n] = splat(0.0f);
    long i = 0;
    for (; i + LANES <= d; i += LANES) {
        fetch_line(next, i);
        add_products(sums, x, rows, d, i, LANES, count);
    }
    if (i < d) add_products(sums, x, rows, d, i, d - i, count);
    for (int s = 0; s < count; s++)
        for (int n = 0; n < NEURONS; n++) out[s * NEURONS + n] = sum_of(sums[s][n]);
}

static INLINE vec plus_scaled(const float *y, const float *scales, const float *const *rows, long i, const long lanes) {
    vec sum = part(y + i, lanes);
    for (int n = 0; n < NEURONS; n++) sum += scales[n] * part(rows[n] + i, lanes);
    return sum;
}

/* y += the sum of some rows of weights, each times its own scale, while those in `next` are fetched. */
static void add_scaled(float *y, const float *scales, const float *const *rows, const float *const *next, long d) {
    long i = 0;
    for (; i + LANES <= d; i += LANES) {
        fetch_line(next, i);
        store(y + i, plus_scaled(y, scales, rows, i, LANES));
    }
    if (i < d) store_some(y + i, plus_scaled(y, scales, rows, i, d - i), d - i);
}

/* Where the rows of a few neurons begin; the last one's stands for those that are missing. */
static void rows_of(const float *w, const int32_t *open, long count, long d, const float **rows) {
    for (long n = 0; n < NEURONS; n++) rows[n] = w + open[at_most(count - 1, n)] * d;
}

/* Computes what multiplies the downs of some of the open neurons, 0 for a row whose neuron is not open or would write too
 * little; keeps those that any row needs in front of the list and returns their number. */
static long through_ups(const step_t *at, const layer_t *layer, const float *normed, int32_t *open, long count) {
    long b = at->count, d = at->sizes->d, f = layer->width, kept = 0;
    const float *ups[NEURONS], *next[NEURONS];
    float products[2 * NEURONS];
    rows_of(layer->up_rows, open, count, d, next);
    for (long i = 0; i < count; i += NEURONS) {
        long some = at_most(NEURONS, count - i), left = count - i - some;
        int32_t numbers[NEURONS];
        int any[NEURONS] = {0};
        memcpy(ups, next, sizeof ups);
        memcpy(numbers, open + i, sizeof(int32_t) * some);
        if (left > 0) rows_of(layer->up_rows, open + i + some, left, d, next);
        for (long row = 0; row < b; row += 2) {
            const float *const *fetched = row || left <= 0 ? NULL : next;
            long together = at_most(2, b - row);
            if (together == 2) some_dots(normed + row * d, ups, fetched, products, d, 2);
            else some_dots(normed + row * d, ups, fetched, products, d, 1);
            for (long s = 0; s < together; s++)
                for (long n = 0; n < some; n++) {
                    float *a = at->a + (row + s) * f + numbers[n];
                    float wide = *a == 0.0f ? 0.0f : *a * products[s * NEURONS + n];
                    *a = fabsf(wide) * layer->down_norms[numbers[n]] >= layer->least_written ? wide : 0.0f;
                    any[n] |= *a != 0.0f;
                }
        }
        for (long n = 0; n < some; n++) {
            open[kept] = numbers[n];
            kept += any[n];
        }
    }
    return kept;
}

/* Adds what some neurons write to this thread's sums. */
static void through_downs(const step_t *at, const layer_t *layer, float *sums, const int32_t *kept, long count) {
    long b = at->count, d = at->sizes->d, f = layer->width;
    const float *downs[NEURONS], *next[NEURONS];
    float scales[NEURONS];
    if (count > 0) rows_of(layer->w_down, kept, count, d, next);
    for (long i = 0; i < count; i += NEURONS) {
        long left = count - i - NEURONS;
        memcpy(downs, next, sizeof downs);
        if (left > 0) rows_of(layer->w_down, kept + i + NEURONS, left, d, next);
        for (long row = 0; row < b; row++) {
            for (long n = 0; n < NEURONS; n++) scales[n] = i + n < count ? at->a[row * f + kept[i + n]] : 0.0f;
            add_scaled(sums + row * d, scales, downs, row || left <= 0 ? NULL : next, d);
        }
    }
}

/* The stream plus a layer's feed-forward part. `following` is what is read next. */
static void gated_feed_forward(const step_t *at, const layer_t *layer, const own_t *own, const piece_t *following) {
    const sizes_t *s = at->sizes;
    long b = at->count, d = s->d, f = layer->width, total = 0;
    range_t columns = own_columns(f, at->threads);
    for (long row = 0; row < b; row++)
        norm_row(at->x + row * d, layer->feed_forward_norm, own->normed + row * d, d, s->eps);
    at->opened[thread() * LINE] = (int32_t)open_gates(at, layer, own->normed, columns, at->open + columns.from);
    memset(own->sums, 0, sizeof(float) * b * d);
#pragma omp barrier
    for (int t = 0; t < at->threads; t++) total += at->opened[t * LINE];
    long from = total * thread() / at->threads, to = total * (thread() + 1) / at->threads;
    for (int t = 0; t < at->threads; t++) {
        long found = at->opened[t * LINE], first = from > 0 ? from : 0, last = at_most(found, to);
        int32_t *open = at->open + columns_of(f, at->threads, t).from + first;
        if (first < last)
            through_downs(at, layer, own->sums, open, through_ups(at, layer, own->normed, open, last - first));
        from -= found;
        to -= found;
    }
    if (following->w) {
        ahead_t ahead = coming(following, following->rows.from, following->columns.from);
        fetch_lines(&ahead, ahead.rows * ahead.lines);
    }
#pragma omp barrier
    add_sums(at);
#pragma omp barrier
}
