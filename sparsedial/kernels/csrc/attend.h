/* Causal attention of one head of keys and values and of the query heads that share it. Twin:
 * functional.scaled_dot_product_attention. S positions, C head_dim, V width of a value. */
#pragma once
#include "products.h"

#define BLOCK 24 /* queries; four tiles */

typedef struct {
    long group, s, c, v; /* `group` query heads */
    float scale;
    const float *q, *keys, *values; /* [group, S, C], [S, C], [S, V] */
    float *mixed;                   /* [S, group, V], its rows `wide` floats apart */
    long wide;
    float *normaliser; /* [group, S] log of the sum of exponentials of each query's scores */
} heads_t;

/* Scratch of each thread. */
typedef struct {
    float *keys, *keys_across, *values, *scores, *dscores, *panels;
} attend_scratch_t;

static inline long lay_attend(attend_scratch_t *use, float *base, long s, long c, long v) {
    long deep = whole(s, TILE_N), wide = whole(c > v ? c : v, TILE_N), used = 0;
    use->keys = take(&base, &used, deep * whole(c, TILE_N) + LANES);
    use->keys_across = take(&base, &used, deep * whole(c, TILE_N) + LANES);
    use->values = take(&base, &used, deep * whole(v, TILE_N) + LANES);
    use->scores = take(&base, &used, BLOCK * whole(s, LANES) + LANES);
    use->dscores = take(&base, &used, BLOCK * whole(s, LANES) + LANES);
    use->panels = take(&base, &used, wide * BLOCK + LANES);
    return used;
}

static inline float *attend_for_each_thread(int threads, long s, long c, long v) {
    attend_scratch_t use;
    return for_each_thread(threads, lay_attend(&use, NULL, s, c, v));
}

static inline attend_scratch_t own_attend(float *of_all, long s, long c, long v) {
    attend_scratch_t use;
    lay_attend(&use, own_part(of_all, lay_attend(&use, NULL, s, c, v)), s, c, v);
    return use;
}

/* Scores of a block of queries are whole rows over the keys before the block's end, so the softmax is the plain one. */
static void attend(const heads_t *at, const attend_scratch_t *use) {
    long s = at->s, c = at->c, v = at->v, row_length = whole(s, LANES);
    pack_all(at->keys, 1, c, c, s, c, use->keys_across);
    pack_all(at->values, v, 1, s, v, s, use->values);
    for (long h = 0; h < at->group; h++) {
        const float *q = at->q + h * s * c;
        float *normaliser = at->normaliser + h * s;
        for (long from = 0; from < s; from += BLOCK) {
            long rows = at_most(BLOCK, s - from), seen = from + rows;
            float inverse[BLOCK];
            by_panels(q + from * c, c, 1, use->keys_across, c, use->scores, row_length, rows, seen, c, 0);
            for (long i = 0; i < rows; i++) {
                float *row = use->scores + i * row_length;
                long count = from + i + 1;
                float shift = largest(row, count) * at->scale;
                float sum = exponentials(row, count, at->scale, shift);
                for (long j = whole(count, LANES); j < seen; j++) row[j] = 0.0f;
                normaliser[from + i] = shift + logf(sum);
                inverse[i] = 1.0f / sum;
            }
            float *out = at->mixed + from * at->wide + h * v;
            by_panels(use->scores, row_length, 1, use->values, s, out, at->wide, rows, v, seen, 0);
            for (long i = 0; i < rows; i++)
                for (long j = 0; j < v; j++) out[i * at->wide + j] *= inverse[i];
        }
    }
}

/* Gradients of q, keys and values from that of `mixed`, which has the same layout; the weights are computed again from
 * the normalisers. */
static void attend_backward(const heads_t *at, const float *dmixed, float *dq, float *dkeys, float *dvalues,
                            const attend_scratch_t *use) {
    long s = at->s, c = at->c, v = at->v, wide = at->wide, row_length = whole(s, LANES);
    pack_all(at->keys, 1, c, c, s, c, use->keys_across);
    pack_all(at->values, 1, v, v, s, v, use->values); /* across */
    pack_all(at->keys, c, 1, s, c, s, use->keys);
    memset(dkeys, 0, sizeof(float) * s * c);
    memset(dvalues, 0, sizeof(float) * s * v);
    for (long h = 0; h < at->group; h++) {
        const float *q = at->q + h * s * c, *normaliser = at->normaliser + h * s;
        for (long from = 0; from < s; from += BLOCK) {
            long rows = at_most(BLOCK, s - from), seen = from + rows;
            const float *grad = dmixed + from * wide + h * v, *out = at->mixed + from * wide + h * v;
            by_panels(q + from * c, c, 1, use->keys_across, c, use->scores, row_length, rows, seen, c, 0);
            by_panels(grad, wide, 1, use->values, v, use->dscores, row_length, rows, seen, v, 0);
            for (long i = 0; i < rows; i++) {
                float *restrict row = use->scores + i * row_length, *restrict drow = use->dscores + i * row_length;
                long count = from + i + 1;
                exponentials(row, count, at->scale, normaliser[from + i]);
                float inner = dot(grad + i * wide, out + i * wide, v);
                for (long j = 0; j < count; j++) drow[j] = row[j] * (drow[j] - inner) * at->scale;
                for (long j = count; j < seen; j++) row[j] = drow[j] = 0.0f;
            }
            by_panels(use->dscores, row_length, 1, use->keys, s, dq + (h * s + from) * c, c, rows, c, seen, 0);
            pack_all(grad, wide, 1, rows, v, BLOCK, use->panels);
            by_panels(use->scores, 1, row_length, use->panels, BLOCK, dvalues, v, seen, v, rows, 1);
            pack_all(q + from * c, c, 1, rows, c, BLOCK, use->panels);
            by_panels(use->dscores, 1, row_length, use->panels, BLOCK, dkeys, c, seen, c, rows, 1);
        }
    }
}
