/* Cross-entropy of rows of logits. Twin: functional.cross_entropy. T tokens, V words. */
#include "kernels.h"

/* `loss`: the mean over tokens of normaliser[t] - logits[t, target[t]], nats. */
void entropy_forward(const float *logits, const int64_t *target, float *normaliser, float *loss, long tokens, long v,
                     int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (long t = 0; t < tokens; t++) {
        const float *row = logits + t * v;
        float most = largest(row, v);
        vec total = splat(0.0f);
        long i = 0;
        for (; i + LANES <= v; i += LANES) total += vexp(load(row + i) - most);
        float sum = sum_of(total);
        for (; i < v; i++) sum += exp_of(row[i] - most);
        normaliser[t] = most + logf(sum);
    }
    double all = 0;
    for (long t = 0; t < tokens; t++) all += (double)normaliser[t] - (double)logits[t * v + target[t]];
    *loss = (float)(all / (double)tokens);
}

void entropy_backward(const float *dloss, const float *logits, const int64_t *target, const float *normaliser,
                      float *dlogits, long tokens, long v, int threads) {
    float scale = *dloss / (float)tokens;
#pragma omp parallel for num_threads(threads) if (threads > 1) schedule(static)
    for (long t = 0; t < tokens; t++) {
        const float *row = logits + t * v;
        float *out = dlogits + t * v;
        long i = 0;
        for (; i + LANES <= v; i += LANES) store(out + i, vexp(load(row + i) - normaliser[t]) * scale);
        for (; i < v; i++) out[i] = exp_of(row[i] - normaliser[t]) * scale;
        out[target[t]] -= scale;
    }
}
