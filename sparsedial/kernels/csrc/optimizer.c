/* AdamW over all tensors in one call, and the norm of a whole gradient. Twin: torch.optim.AdamW. */
#include "kernels.h"

/* The norm over `count` tensors. */
double gradient_norm(const float *const *gradients, const int64_t *sizes, long count, int threads) {
    double squares = 0;
#pragma omp parallel for num_threads(threads) if (threads > 1) reduction(+ : squares) schedule(dynamic)
    for (long i = 0; i < count; i++) {
        const float *g = gradients[i];
        for (long from = 0; from < sizes[i]; from += 1024) {
            long n = at_most(1024, sizes[i] - from);
            squares += (double)dot(g + from, g + from, n);
        }
    }
    return sqrt(squares);
}

/* One step; the corrections are 1 - beta^steps. */
void adamw(float *const *parameters, const float *const *gradients, float *const *firsts, float *const *seconds,
           const int64_t *sizes, long count, float rate, float beta1, float beta2, float epsilon, float decay,
           float correction1, float correction2, int threads) {
    float keep = 1.0f - rate * decay, step = rate / correction1, root = 1.0f / sqrtf(correction2);
#pragma omp parallel num_threads(threads) if (threads > 1)
    for (long i = 0; i < count; i++) {
        float *restrict p = parameters[i];
        float *restrict m = firsts[i], *restrict v = seconds[i];
        const float *restrict g = gradients[i];
#pragma omp for schedule(static) nowait
        for (long j = 0; j < sizes[i]; j++) {
            m[j] += (1.0f - beta1) * (g[j] - m[j]);
            v[j] = beta2 * v[j] + (1.0f - beta2) * g[j] * g[j];
            p[j] = p[j] * keep - step * m[j] / (sqrtf(v[j]) * root + epsilon);
        }
    }
}
