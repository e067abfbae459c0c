/* Causal attention only, for layers that make queries, keys and values elsewhere: y = softmax(q k^T scale) v.
 * Twin: attend in model/attention.py.
 * B sequences, S positions, H query heads, G of keys and values, C head_dim, V width of a value. */
#include "attend.h"
#include "kernels.h"

static heads_t heads_of(const float *q, const float *k, const float *v, float *y, float *normaliser, long bg, long s,
                        long heads, long kv_heads, long c, long width, float scale) {
    long group = heads / kv_heads, b = bg / kv_heads, g = bg % kv_heads;
    return (heads_t){
        .group = group, .s = s, .c = c, .v = width, .scale = scale, .wide = heads * width,
        .q = q + bg * group * s * c,
        .keys = k + bg * s * c,
        .values = v + bg * s * width,
        .mixed = y + (b * s * heads + g * group) * width,
        .normaliser = normaliser + bg * group * s,
    };
}

/* q [B, H, S, C], k [B, G, S, C], v [B, G, S, V] to y [B, S, H, V]; the backward pass needs `normaliser` [B, H, S]. */
int causal_forward(const float *q, const float *k, const float *v, float *y, float *normaliser, long sequences, long s,
                   long heads, long kv_heads, long c, long width, float scale, int threads) {
    float *each_use = attend_for_each_thread(threads, s, c, width);
    if (each_use)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        attend_scratch_t use = own_attend(each_use, s, c, width);
#pragma omp for schedule(static)
        for (long bg = 0; bg < sequences * kv_heads; bg++) {
            heads_t at = heads_of(q, k, v, y, normaliser, bg, s, heads, kv_heads, c, width, scale);
            attend(&at, &use);
        }
    }
    free(each_use);
    return DONE_IF(each_use);
}

int causal_backward(const float *dy, const float *q, const float *k, const float *v, float *y, float *normaliser,
                    float *dq, float *dk, float *dv, long sequences, long s, long heads, long kv_heads, long c,
                    long width, float scale, int threads) {
    float *each_use = attend_for_each_thread(threads, s, c, width);
    if (each_use)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        attend_scratch_t use = own_attend(each_use, s, c, width);
#pragma omp for schedule(static)
        for (long bg = 0; bg < sequences * kv_heads; bg++) {
            heads_t at = heads_of(q, k, v, y, normaliser, bg, s, heads, kv_heads, c, width, scale);
            attend_backward(&at, dy + (at.mixed - y), dq + (at.q - q), dk + (at.keys - k), dv + (at.values - v), &use);
        }
    }
    free(each_use);
    return DONE_IF(each_use);
}
