/* A dense feed-forward part of which only some neurons take part. To be called by every thread of a parallel region.
 * Twin: Threshold.activations in model/gates.py.
 *
 * All gates are read. Ups (rows of their own) are read of neurons that any row has open: whose |silu(gate)| times weight
 * reaches a threshold. Downs are read of those whose activation times norm then reaches another one for any row. Each
 * thread takes as many open neurons as the others and sums its own outputs. Where rows together have most neurons open,
 * all are multiplied as in other layers, and those that take no part in a row are set to zero there.
 * B rows, each of another sequence, D d_model, F width of the layer. */
#pragma once
#include "decode_feed_forward.h"

#define NEURONS 4 /* multiplied at once, while as many rows of what comes next are fetched */
#define FEW_ROWS 2

/* Whether reading only the open neurons is cheaper: measured (LOG.md, 2026-11-30). Whole products of more rows wait for
 * memory where those of listed neurons wait for arithmetic. */
static int lists(long open, long f, long rows) {
    return rows > FEW_ROWS ? 10 * open <= 7 * f : 20 * open <= 19 * f;
}

static piece_t ups_of(const step_t *at, const layer_t *layer, range_t columns) {
    long f = layer->width;
    return (piece_t){layer->w_in, 2 * f, {0, at->sizes->d}, {f + columns.from, f + columns.to}, (int)at->sizes->half};
}

/* Lists the neurons from j on that any row has open and returns their number. */
static INLINE long open_some(const step_t *at, const layer_t *layer, long j, int32_t *open, const long lanes) {
    long f = layer->width, count = 0;
    ivec any = {0};
    for (long row = 0; row < at->count; row++) {
        vec opened = open_part(at->h + row * 2 * f + j, layer->gate_weights + j, layer->least_gate, lanes);
        store_part(at->a + row * f + j, opened, lanes);
        any |= opened != splat(0.0f);
    }
    for (long i = 0; i < lanes; i++) {
        open[count] = (int32_t)(j + i);
        count -= any[i]; /* -1 where open */
    }
    return count;
}

/* What this thread's gates let through to `a` [B, F], 0 where they are not open far enough; lists the neurons that any
 * row has open and returns their number. */
static long open_gates(const step_t *at, const layer_t *layer, const float *normed, range_t columns, int32_t *open) {
    long b = at->count, d = at->sizes->d, f = layer->width, count = 0;
    piece_t ups = ups_of(at, layer, columns), gates = ups;
    gates.columns = columns;
    stream(normed, d, at->h, 2 * f, b, gates, 0, b > FEW_ROWS ? &ups : NULL);
    for (long j = columns.from; j < columns.to; j += LANES) {
        long lanes = at_most(LANES, columns.to - j);
        count += lanes == LANES ? open_some(at, layer, j, open + count, LANES)
                                : open_some(at, layer, j, open + count, lanes);
    }
    return count;
}

static INLINE void fetch_line(const void *const *next, long i, const int half) {
    if (!next || i * weight_bytes(half) % LINE_BYTES) return;
    for (int n = 0; n < NEURONS; n++) __builtin_prefetch(weight_at(next[n], i, half), 0, 2);
}

static INLINE void add_products(vec sums[2][NEURONS], const float *x, const void *const *rows, long d, long i,
                                const long lanes, const int count, const int half) {
    for (int n = 0; n < NEURONS; n++) {
        vec of_row = weights(rows[n], i, lanes, half);
        for (int s = 0; s < count; s++) sums[s][n] += part(x + s * d + i, lanes) * of_row;
    }
}

static INLINE void dots(const float *x, const void *const *rows, const void *const *next, float *out, long d,
                        const int count, const int half) {
    vec sums[2][NEURONS];
    for (int s = 0; s < count; s++)
        for (int n = 0; n < NEURONS; n++) sums[s][n] = splat(0.0f);
    long i = 0;
    for (; i + LANES <= d; i += LANES) {
        fetch_line(next, i, half);
        add_products(sums, x, rows, d, i, LANES, count, half);
    }
    if (i < d) add_products(sums, x, rows, d, i, d - i, count, half);
    for (int s = 0; s < count; s++)
        for (int n = 0; n < NEURONS; n++) out[s * NEURONS + n] = sum_of(sums[s][n]);
}

/* Products of one row or two with rows of weights, while those in `next` are fetched. */
static void some_dots(const float *x, const void *const *rows, const void *const *next, float *out, long d, long count,
                      int half) {
    if (count == 2 && half) dots(x, rows, next, out, d, 2, 1);
    else if (half) dots(x, rows, next, out, d, 1, 1);
    else if (count == 2) dots(x, rows, next, out, d, 2, 0);
    else dots(x, rows, next, out, d, 1, 0);
}

static INLINE vec plus_scaled(const float *y, const float *scales, const void *const *rows, long i, const long lanes,
                              const int half) {
    vec sum = part(y + i, lanes);
    for (int n = 0; n < NEURONS; n++) sum += scales[n] * weights(rows[n], i, lanes, half);
    return sum;
}

/* y += the sum of some rows of weights, each times its own scale, while those in `next` are fetched. */
static INLINE void add_scaled(float *y, const float *scales, const void *const *rows, const void *const *next, long d,
                              const int half) {
    long i = 0;
    for (; i + LANES <= d; i += LANES) {
        fetch_line(next, i, half);
        store(y + i, plus_scaled(y, scales, rows, i, LANES, half));
    }
    if (i < d) store_some(y + i, plus_scaled(y, scales, rows, i, d - i, half), d - i);
}

/* Where the rows of a few neurons begin; the last one's stands for those that are missing. */
static void rows_of(const void *w, const int32_t *open, long count, long d, int half, const void **rows) {
    for (long n = 0; n < NEURONS; n++) rows[n] = weight_at(w, open[at_most(count - 1, n)] * d, half);
}

/* Computes what multiplies the downs of some of the open neurons, 0 for a row whose neuron is not open or would write too
 * little; keeps those that any row needs in front of the list and returns their number. */
static long through_ups(const step_t *at, const layer_t *layer, const float *normed, int32_t *open, long count) {
    long b = at->count, d = at->sizes->d, f = layer->width, kept = 0;
    int half = (int)at->sizes->half;
    const void *ups[NEURONS], *next[NEURONS];
    float products[2 * NEURONS];
    rows_of(layer->up_rows, open, count, d, half, next);
    for (long i = 0; i < count; i += NEURONS) {
        long some = at_most(NEURONS, count - i), left = count - i - some;
        int32_t numbers[NEURONS];
        int any[NEURONS] = {0};
        memcpy(ups, next, sizeof ups);
        memcpy(numbers, open + i, sizeof(int32_t) * some);
        if (left > 0) rows_of(layer->up_rows, open + i + some, left, d, half, next);
        for (long row = 0; row < b; row += 2) {
            long together = at_most(2, b - row);
            some_dots(normed + row * d, ups, row || left <= 0 ? NULL : next, products, d, together, half);
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
    int half = (int)at->sizes->half;
    const void *downs[NEURONS], *next[NEURONS];
    float scales[NEURONS];
    if (count > 0) rows_of(layer->w_down, kept, count, d, half, next);
    for (long i = 0; i < count; i += NEURONS) {
        long left = count - i - NEURONS;
        memcpy(downs, next, sizeof downs);
        if (left > 0) rows_of(layer->w_down, kept + i + NEURONS, left, d, half, next);
        for (long row = 0; row < b; row++) {
            for (long n = 0; n < NEURONS; n++) scales[n] = i + n < count ? at->a[row * f + kept[i + n]] : 0.0f;
            const void *const *fetched = row || left <= 0 ? NULL : next;
            if (half) add_scaled(sums + row * d, scales, downs, fetched, d, 1);
            else add_scaled(sums + row * d, scales, downs, fetched, d, 0);
        }
    }
}

static INLINE void write_some(const step_t *at, const layer_t *layer, long j, const long lanes) {
    long f = layer->width;
    for (long row = 0; row < at->count; row++) {
        float *a = at->a + row * f + j;
        const float *up = at->h + row * 2 * f + f + j;
        store_part(a, written_part(part(a, lanes), up, layer->down_norms + j, layer->least_written, lanes), lanes);
    }
}

/* Adds what all neurons of this thread's columns write, by whole products; those that take no part are set to 0. */
static void through_all(const step_t *at, const layer_t *layer, const own_t *own, range_t columns,
                        const piece_t *following) {
    long b = at->count, d = at->sizes->d, f = layer->width, j = columns.from;
    piece_t ups = ups_of(at, layer, columns), downs = {layer->w_down, d, columns, {0, d}, ups.half};
    stream(own->normed, d, at->h, 2 * f, b, ups, 0, &downs);
    for (; j + LANES <= columns.to; j += LANES) write_some(at, layer, j, LANES);
    if (j < columns.to) write_some(at, layer, j, columns.to - j);
    stream(at->a, f, own->sums, d, b, downs, 1, following);
}

/* Adds what all `total` open neurons write; each thread takes as many as the others. */
static void through_open(const step_t *at, const layer_t *layer, const own_t *own, long total,
                         const piece_t *following) {
    long from = total * thread() / at->threads, to = total * (thread() + 1) / at->threads;
    for (int t = 0; t < at->threads; t++) {
        long found = at->opened[t * LINE], first = from > 0 ? from : 0, last = at_most(found, to);
        int32_t *open = at->open + columns_of(layer->width, at->threads, t).from + first;
        if (first < last)
            through_downs(at, layer, own->sums, open, through_ups(at, layer, own->normed, open, last - first));
        from -= found;
        to -= found;
    }
    if (following->w) {
        ahead_t ahead = coming(following, following->rows.from, following->columns.from);
        fetch_lines(&ahead, ahead.rows * ahead.lines);
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
    if (lists(total, f, b)) through_open(at, layer, own, total, following);
    else through_all(at, layer, own, columns, following);
#pragma omp barrier
    add_sums(at);
#pragma omp barrier
}
