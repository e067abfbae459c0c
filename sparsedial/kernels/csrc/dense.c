/* The dense feed-forward layer: y = x + swiglu(norm(x)), by all neurons or those that reach a threshold. Twin:
 * DenseFeedForward in model/transformer.py.
 * T tokens, D d_model, F width. Weights [in, out], w_in with the gate half first. */
#include "kernels.h"
#include "rows.h"
#include "swiglu.h"
#include "weights.h"

typedef struct {
    float *normed; /* [T, D] */
    float *rms;    /* [T] reciprocals */
    float *h;      /* [T, 2F]; in the backward pass its gradient */
} dense_t;

static long lay_dense(dense_t *s, float *base, long tokens, long d, long f) {
    long used = 0;
    s->normed = take(&base, &used, tokens * d);
    s->rms = take(&base, &used, tokens);
    s->h = take(&base, &used, tokens * 2 * f);
    return used;
}

long dense_saved(long tokens, long d, long f) {
    dense_t s;
    return lay_dense(&s, NULL, tokens, d, f);
}

/* All rows at once, by threads that divide the columns. `a` is scratch of [T, F]. */
static void few_rows(const dense_t *at, const float *x, const float *norm, const void *w_in, const void *w_out,
                     const threshold_t *threshold, float *a, float *y, long tokens, long d, long f, float eps, int half) {
#pragma omp for schedule(static)
    for (long t = 0; t < tokens; t++) {
        at->rms[t] = norm_row(x + t * d, norm, at->normed + t * d, d, eps);
        memcpy(y + t * d, x + t * d, sizeof(float) * d);
    }
    product_by_turns(at->normed, w_in, half, at->h, tokens, 2 * f, d, 0);
#pragma omp for schedule(static)
    for (long t = 0; t < tokens; t++) swiglu_row(at->h + t * 2 * f, a + t * f, f, threshold);
    product_by_turns(a, w_out, half, y, tokens, d, f, 1);
}

int dense_forward(const float *x, const float *norm, const void *w_in, const void *w_out, const float *gate_weights,
                  const float *down_norms, float *y, float *saved, long tokens, long d, long f, float least_gate,
                  float least_written, float eps, int half, int threads) {
    threshold_t scores = {gate_weights, down_norms, least_gate, least_written};
    const threshold_t *threshold = gate_weights ? &scores : NULL;
    dense_t at;
    lay_dense(&at, saved, tokens, d, f);
    if (tokens <= TURNS_ROWS) {
        float *a = floats(tokens * f);
        if (a)
#pragma omp parallel num_threads(threads) if (threads > 1)
            few_rows(&at, x, norm, w_in, w_out, threshold, a, y, tokens, d, f, eps, half);
        free(a);
        return DONE_IF(a);
    }
    long piece = piece_rows(tokens, threads);
    float *in_panels = panels_for(d, 2 * f), *out_panels = panels_for(f, d), *each_a = for_each_thread(threads, piece * f);
    int there = ALL_THERE(in_panels, out_panels, each_a);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        shared_weights(w_in, half, d, 2 * f, in_panels);
        shared_weights(w_out, half, f, d, out_panels);
        float *a = own_part(each_a, piece * f);
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece) {
            long rows = at_most(piece, tokens - from);
            for (long t = from; t < from + rows; t++)
                at.rms[t] = norm_row(x + t * d, norm, at.normed + t * d, d, eps);
            memcpy(y + from * d, x + from * d, sizeof(float) * rows * d);
            swiglu_rows(at.normed + from * d, in_panels, out_panels, at.h + from * 2 * f, a, y + from * d, rows, d, f,
                        threshold);
        }
    }
    free(in_panels); free(out_panels); free(each_a);
    return DONE_IF(there);
}

int dense_backward(const float *dy, const float *x, const float *norm, const float *w_in, const float *w_out,
                   float *saved, float *dx, float *dnorm, float *dw_in, float *dw_out, long tokens, long d, long f,
                   int threads) {
    dense_t at;
    lay_dense(&at, saved, tokens, d, f);
    float *a = floats(tokens * f), *parts = calloc((size_t)threads * d, sizeof(float));
    float *in_across = panels_for(2 * f, d), *out_across = panels_for(d, f);
    long piece = piece_rows(tokens, threads);
    float *each_da = for_each_thread(threads, piece * f), *each_dnormed = for_each_thread(threads, piece * d);
    int there = ALL_THERE(a, parts, in_across, out_across, each_da, each_dnormed);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        shared_pack(w_in, 1, 2 * f, 2 * f, d, in_across);
        shared_pack(w_out, 1, d, d, f, out_across);
        float *da = own_part(each_da, piece * f), *dnormed = own_part(each_dnormed, piece * d);
        float *own_parts = parts + (long)thread() * d;
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece) {
            long rows = at_most(piece, tokens - from);
            swiglu_rows_backward(dy + from * d, in_across, out_across, at.h + from * 2 * f, a + from * f, da, dnormed,
                                 rows, d, f);
            for (long i = 0; i < rows; i++) {
                long t = from + i;
                norm_row_backward(dnormed + i * d, x + t * d, norm, at.rms[t], dy + t * d, dx + t * d, own_parts, d);
            }
        }
        shared_product(at.normed, 1, d, at.h, 2 * f, 1, dw_in, d, 2 * f, tokens, threads);
        shared_product(a, 1, f, dy, d, 1, dw_out, f, d, tokens, threads);
    }
    if (there) gather_columns(dnorm, parts, threads, d, d);
    free(a); free(parts); free(in_across); free(out_across); free(each_da); free(each_dnormed);
    return DONE_IF(there);
}
