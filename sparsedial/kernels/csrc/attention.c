/* Causal attention. Twin: functional.scaled_dot_product_attention.
 *
 * One query head at a time: its keys and values are packed once, and blocks of queries meet only the keys before their
 * end. Scores of a block are whole rows, so the softmax is the plain one. B sequences, H query heads, G of keys and
 * values, S positions, C head_dim. qk [B, H + G, S, C] with the queries first, v [B, G, S, C], y [B, S, H * C].
 */
#include "kernels.h"
#include "products.h"

#define BLOCK 24 /* queries; four tiles */

static inline long up(long size) { return (size + TILE_N - 1) / TILE_N * TILE_N; }

/* exp(scale * x - shift) over the first `count`, zeros up to `all`; their sum. */
static float weigh(float *x, long count, long all, float scale, float shift) {
    vec total = splat(0.0f);
    long i = 0;
    for (; i + LANES <= count; i += LANES) {
        vec v = vexp(load(x + i) * scale - shift);
        store(x + i, v);
        total += v;
    }
    float sum = sum_of(total);
    for (; i < count; i++) sum += x[i] = exp_of(x[i] * scale - shift);
    for (; i < all; i++) x[i] = 0.0f;
    return sum;
}

/* `normaliser` [B, H, S]: the log of the sum of exponentials of each query's scores. */
void attention_forward(const float *qk, const float *v, float *y, float *normaliser, long b_count, long heads,
                       long kv_heads, long s, long c, float scale, int threads) {
    long wide = heads * c, group = heads / kv_heads, stride = heads + kv_heads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *keys = malloc(sizeof(float) * up(s) * c), *values = malloc(sizeof(float) * up(c) * s);
        float *scores = malloc(sizeof(float) * BLOCK * s);
#pragma omp for schedule(static)
        for (long bg = 0; bg < b_count * kv_heads; bg++) {
            long b = bg / kv_heads, g = bg % kv_heads;
            pack_all(qk + (b * stride + heads + g) * s * c, 1, c, c, s, c, keys);
            pack_all(v + bg * s * c, c, 1, s, c, s, values);
            for (long h = g * group; h < (g + 1) * group; h++) {
                const float *q = qk + (b * stride + h) * s * c;
                for (long first = 0; first < s; first += BLOCK) {
                    long rows = at_most(BLOCK, s - first), seen = first + rows;
                    by_panels(q + first * c, c, 1, keys, c, scores, seen, rows, seen, c, 0);
                    float inverse[BLOCK];
                    for (long i = 0; i < rows; i++) {
                        float *row = scores + i * seen;
                        float shift = largest(row, first + i + 1) * scale;
                        float sum = weigh(row, first + i + 1, seen, scale, shift);
                        normaliser[(b * heads + h) * s + first + i] = shift + logf(sum);
                        inverse[i] = 1.0f / sum;
                    }
                    float *out = y + (b * s + first) * wide + h * c;
                    by_panels(scores, seen, 1, values, s, out, wide, rows, c, seen, 0);
                    for (long i = 0; i < rows; i++)
                        for (long j = 0; j < c; j++) out[i * wide + j] *= inverse[i];
                }
            }
        }
        free(keys); free(values); free(scores);
    }
}

/* Weights are made again from the normalisers. */
void attention_backward(const float *dy, const float *y, const float *qk, const float *v, const float *normaliser,
                        float *dqk, float *dv, long b_count, long heads, long kv_heads, long s, long c, float scale,
                        int threads) {
    long wide = heads * c, group = heads / kv_heads, stride = heads + kv_heads;
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *keys_across = malloc(sizeof(float) * up(s) * c), *values_across = malloc(sizeof(float) * up(s) * c);
        float *keys = malloc(sizeof(float) * up(c) * s), *panels = malloc(sizeof(float) * up(c) * BLOCK);
        float *weights = malloc(sizeof(float) * BLOCK * s), *dscores = malloc(sizeof(float) * BLOCK * s);
#pragma omp for schedule(static)
        for (long bg = 0; bg < b_count * kv_heads; bg++) {
            long b = bg / kv_heads, g = bg % kv_heads;
            const float *k = qk + (b * stride + heads + g) * s * c;
            float *dk = dqk + (b * stride + heads + g) * s * c, *dvalue = dv + bg * s * c;
            pack_all(k, 1, c, c, s, c, keys_across);
            pack_all(v + bg * s * c, 1, c, c, s, c, values_across);
            pack_all(k, c, 1, s, c, s, keys);
            memset(dk, 0, sizeof(float) * s * c);
            memset(dvalue, 0, sizeof(float) * s * c);
            for (long h = g * group; h < (g + 1) * group; h++) {
                const float *q = qk + (b * stride + h) * s * c;
                for (long first = 0; first < s; first += BLOCK) {
                    long rows = at_most(BLOCK, s - first), seen = first + rows;
                    const float *grad = dy + (b * s + first) * wide + h * c, *out = y + (b * s + first) * wide + h * c;
                    by_panels(q + first * c, c, 1, keys_across, c, weights, seen, rows, seen, c, 0);
                    by_panels(grad, wide, 1, values_across, c, dscores, seen, rows, seen, c, 0);
                    for (long i = 0; i < rows; i++) {
                        float *restrict row = weights + i * seen, *restrict drow = dscores + i * seen;
                        weigh(row, first + i + 1, seen, scale, normaliser[(b * heads + h) * s + first + i]);
                        float inner = dot(grad + i * wide, out + i * wide, c);
                        for (long j = 0; j < seen; j++) drow[j] = row[j] * (drow[j] - inner) * scale;
                    }
                    by_panels(dscores, seen, 1, keys, s, dqk + ((b * stride + h) * s + first) * c, c, rows, c, seen, 0);
                    pack_all(grad, wide, 1, rows, c, BLOCK, panels);
                    by_panels(weights, 1, seen, panels, BLOCK, dvalue, c, seen, c, rows, 1);
                    pack_all(q + first * c, c, 1, rows, c, BLOCK, panels);
                    by_panels(dscores, 1, seen, panels, BLOCK, dk, c, seen, c, rows, 1);
                }
            }
        }
        free(keys_across); free(values_across); free(keys); free(panels); free(weights); free(dscores);
    }
}
