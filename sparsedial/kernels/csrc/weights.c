/* Products with weights as they are held, of what no layer's kernel multiplies; where they are in float32, PyTorch has those
 * of many rows, and the logits. Twins: narrow.product and functional.linear, with the weights widened. T tokens, K values
 * in, N out, D d_model, V words. */
#include "kernels.h"
#include "unembed.h"

/* y [T, N] = x [T, K] W [K, N] */
int weights_product(const float *x, const void *w, float *y, long tokens, long k, long n, int half, int threads) {
    if (tokens <= TURNS_ROWS) {
#pragma omp parallel num_threads(threads) if (threads > 1)
        product_by_turns(x, w, half, y, tokens, n, k, 0);
        return DONE_IF(1);
    }
    long piece = piece_rows(tokens, threads);
    float *panels = panels_for(k, n);
    if (panels)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        shared_weights(w, half, k, n, panels);
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece)
            by_panels(x + from * k, k, 1, panels, k, y + from * n, n, at_most(piece, tokens - from), n, k, 0);
    }
    free(panels);
    return DONE_IF(panels);
}

/* Logits [T, V] of normed rows. */
void half_logits(const float *normed, const void *table, float *logits, long tokens, long d, long words, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    unembed(normed, table, logits, tokens, d, words, 1);
}
