/* Only the experts of the sparse layer. Twin: reference.reference. */
#include "experts.h"
#include "kernels.h"

long experts_saved(long tokens, long f, long e, long k) {
    experts_t s;
    return lay_experts(&s, NULL, tokens, f, e, k);
}

/* `top_k` [T]: a token visits its first `top_k` choices; NULL: all of them. */
int experts_forward(const float *x, const float *w_in, const float *w_out, const int64_t *chosen, const float *gates,
                    const int64_t *top_k, float *y, float *saved, long tokens, long d, long f, long e, long k,
                    int threads) {
    experts_t at;
    lay_experts(&at, saved, tokens, f, e, k);
    for (long row = 0; row < tokens * k; row++)
        at.chosen[row] = top_k && row % k >= top_k[row / k] ? NO_EXPERT : (int32_t)chosen[row];
    sort_rows(&at, tokens * k, e);
    float *y_rows = floats(tokens * k * d), *each_expert = experts_for_each_thread(threads, d, f, 0);
    int there = ALL_THERE(y_rows, each_expert);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        through_experts(&at, x, w_in, w_out, 0, y_rows, each_expert, d, f, e, k);
#pragma omp for schedule(static)
        for (long t = 0; t < tokens; t++) {
            memset(y + t * d, 0, sizeof(float) * d);
            combine(&at, y_rows, gates, y + t * d, t, d, k);
        }
    }
    free(y_rows); free(each_expert);
    return DONE_IF(there);
}

int experts_backward(const float *dy, const float *x, const float *w_in, const float *w_out, const float *gates,
                     float *saved, float *dx, float *dw_in, float *dw_out, float *dgates, long tokens, long d, long f,
                     long e, long k, int threads) {
    experts_t at;
    lay_experts(&at, saved, tokens, f, e, k);
    float *dx_rows = floats(tokens * k * d), *each_expert = experts_for_each_thread(threads, d, f, 1);
    int there = ALL_THERE(dx_rows, each_expert);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        back_through_experts(&at, dy, x, w_in, w_out, gates, dx_rows, dw_in, dw_out, dgates, each_expert, d, f, e, k);
#pragma omp for schedule(static)
        for (long t = 0; t < tokens; t++) {
            memset(dx + t * d, 0, sizeof(float) * d);
            combine(&at, dx_rows, NULL, dx + t * d, t, d, k);
            for (long row = t * k; row < (t + 1) * k; row++)
                if (at.chosen[row] == NO_EXPERT) dgates[row] = 0.0f;
        }
    }
    free(dx_rows); free(each_expert);
    return DONE_IF(there);
}
