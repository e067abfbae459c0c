/* SwiGLU on rows: h = x W_in with the gate half first, a = silu(gate) * up, y = a W_out. Twin: reference.swiglu.
 * D d_model, F width, H = 2F. */
#pragma once
#include "products.h"

static inline vec silu_times(vec gate, vec up) { return gate / (1.0f + vexp(-gate)) * up; }

static inline void activate_row(const float *restrict h, float *restrict a, long f) {
    long i = 0;
    for (; i + LANES <= f; i += LANES) store(a + i, silu_times(load(h + i), load(h + f + i)));
    if (i < f) store_some(a + i, silu_times(load_some(h + i, f - i, 0), load_some(h + f + i, f - i, 0)), f - i);
}

/* From da to dh, which overwrites h; both dh and a are times `gate`. Returns the sum of da * a without the gate. */
static inline float activate_row_backward(float *restrict h, const float *restrict da, float gate, float *restrict a,
                                          long f) {
    vec total = splat(0.0f);
    for (long i = 0; i < f; i += LANES) {
        long count = at_most(LANES, f - i);
        int all = count == LANES;
        vec in = all ? load(h + i) : load_some(h + i, count, 0), up = all ? load(h + f + i) : load_some(h + f + i, count, 0);
        vec grad = all ? load(da + i) : load_some(da + i, count, 0);
        vec sigmoid = 1.0f / (1.0f + vexp(-in)), silu = in * sigmoid, product = silu * up;
        total += grad * product;
        grad *= gate;
        vec dgate = grad * up * sigmoid * (1.0f + in * (1.0f - sigmoid)), dup = grad * silu;
        product *= gate;
        if (all) {
            store(h + i, dgate);
            store(h + f + i, dup);
            store(a + i, product);
        } else {
            store_some(h + i, dgate, count);
            store_some(h + f + i, dup, count);
            store_some(a + i, product, count);
        }
    }
    return sum_of(total);
}

/* Which neurons take part: scores of their gates and of what they write, by the scores' weights [F], reach thresholds. */
typedef struct { const float *gate_weights, *down_norms; float least_gate, least_written; } threshold_t;

/* Silu of the gates that are open, 0 for the others; what of that times ups writes enough. */
static INLINE vec open_part(const float *gate, const float *weights, float least, const long lanes) {
    return reaching(silu_times(part(gate, lanes), splat(1.0f)), part(weights, lanes), least);
}
static INLINE vec written_part(vec opened, const float *up, const float *norms, float least, const long lanes) {
    return reaching(opened * part(up, lanes), part(norms, lanes), least);
}

static INLINE void activate_part(const float *h, float *a, long f, const threshold_t *t, long i, const long lanes) {
    vec opened = open_part(h + i, t->gate_weights + i, t->least_gate, lanes);
    store_part(a + i, written_part(opened, h + f + i, t->down_norms + i, t->least_written, lanes), lanes);
}

/* As `activate_row`, 0 for neurons that take no part. Twin: Threshold.activations in model/gates.py. */
static inline void activate_some(const float *restrict h, float *restrict a, long f, const threshold_t *t) {
    long i = 0;
    for (; i + LANES <= f; i += LANES) activate_part(h, a, f, t, i, LANES);
    if (i < f) activate_part(h, a, f, t, i, f - i);
}

/* A row's activations, with a threshold of the neurons that take part. */
static inline void swiglu_row(const float *h, float *a, long f, const threshold_t *threshold) {
    if (threshold) activate_some(h, a, f, threshold);
    else activate_row(h, a, f);
}

/* y += swiglu(x) of some rows with packed weights; h is kept for the backward pass, `a` is scratch of rows * F. With a
 * threshold, by the neurons that take part. */
static inline void swiglu_rows(const float *x, const float *in_panels, const float *out_panels, float *h, float *a,
                               float *y, long rows, long d, long f, const threshold_t *threshold) {
    by_panels(x, d, 1, in_panels, d, h, 2 * f, rows, 2 * f, d, 0);
    for (long i = 0; i < rows; i++) swiglu_row(h + i * 2 * f, a + i * f, f, threshold);
    by_panels(a, f, 1, out_panels, f, y, d, rows, d, f, 1);
}

/* dx = the gradient of some rows' x, with packed transposed weights; for the weights' gradients h becomes its own
 * gradient and `a` is computed again. `da` is scratch of rows * F. */
static inline void swiglu_rows_backward(const float *dy, const float *in_across, const float *out_across, float *h,
                                        float *a, float *da, float *dx, long rows, long d, long f) {
    by_panels(dy, d, 1, out_across, d, da, f, rows, f, d, 0);
    for (long i = 0; i < rows; i++) activate_row_backward(h + i * 2 * f, da + i * f, 1.0f, a + i * f, f);
    by_panels(h, 2 * f, 1, in_across, 2 * f, dx, d, rows, d, 2 * f, 0);
}
