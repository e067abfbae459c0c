/* RMS norms; and queries and keys normed, rotated and laid out by head. Twins: reference_rms_norm, norm_rotate. */
#include "kernels.h"

void norm_forward(const float *x, const float *w, float *y, float *reciprocal, long rows, long d, float eps,
                  int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long row = 0; row < rows; row++) {
        const float *in = x + row * d;
        float *out = y + row * d;
        float r = 1.0f / sqrtf(dot(in, in, d) / (float)d + eps);
        reciprocal[row] = r;
        for (long i = 0; i < d; i++) out[i] = in[i] * r * w[i];
    }
}

void norm_backward(const float *dy, const float *x, const float *w, const float *reciprocal, float *dx, float *dw,
                   long rows, long d, int threads) {
    memset(dw, 0, sizeof(float) * d);
    float *parts = calloc((size_t)threads * d, sizeof(float));
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *part = parts + (long)thread() * d;
#pragma omp for schedule(static)
        for (long row = 0; row < rows; row++) {
            const float *in = x + row * d, *grad = dy + row * d;
            float *out = dx + row * d;
            float r = reciprocal[row], inner = 0;
            for (long i = 0; i < d; i++) {
                float hat = in[i] * r, g = grad[i];
                part[i] += g * hat;
                inner += g * w[i] * hat;
            }
            inner /= (float)d;
            for (long i = 0; i < d; i++) out[i] = (grad[i] * w[i] - in[i] * r * inner) * r;
        }
    }
    for (int t = 0; t < threads; t++)
        for (long i = 0; i < d; i++) dw[i] += parts[(long)t * d + i];
    free(parts);
}

/* Queries and keys normed, rotated and laid out by head; values laid out by head:
 * qkv [B, S, (N + G) * C], N = H + G heads that are turned, G of values; to qk [B, N, S, C] and v [B, G, S, C].
 * Weight [N, C]; cosine and sine [S, C], halves repeated, the sine's first half negated. */
void heads_forward(const float *qkv, const float *w, const float *cosine, const float *sine, float *qk, float *v,
                   float *reciprocal, long b_count, long s_count, long turned, long values, long c, float eps,
                   int threads) {
    long width = (turned + values) * c, half = c / 2;
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long bs = 0; bs < b_count * s_count; bs++) {
        long b = bs / s_count, s = bs % s_count;
        const float *cs = cosine + s * c, *sn = sine + s * c;
        for (long head = 0; head < turned; head++) {
            const float *in = qkv + bs * width + head * c, *weight = w + head * c;
            float *out = qk + ((b * turned + head) * s_count + s) * c;
            float r = 1.0f / sqrtf(dot(in, in, c) / (float)c + eps);
            reciprocal[bs * turned + head] = r;
            for (long i = 0; i < half; i++) {
                float first = in[i] * r * weight[i], second = in[i + half] * r * weight[i + half];
                out[i] = first * cs[i] + second * sn[i];
                out[i + half] = second * cs[i + half] + first * sn[i + half];
            }
        }
        for (long head = 0; head < values; head++)
            memcpy(v + ((b * values + head) * s_count + s) * c, qkv + bs * width + (turned + head) * c,
                   sizeof(float) * c);
    }
}

void heads_backward(const float *dqk, const float *dv, const float *qkv, const float *w, const float *cosine,
                    const float *sine, const float *reciprocal, float *dqkv, float *dw, long b_count, long s_count,
                    long turned, long values, long c, int threads) {
    long width = (turned + values) * c, half = c / 2, size = turned * c;
    float *parts = calloc((size_t)threads * size, sizeof(float));
    memset(dw, 0, sizeof(float) * size);
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        float *part = parts + (long)thread() * size;
        float turned_back[1024];
#pragma omp for schedule(static)
        for (long bs = 0; bs < b_count * s_count; bs++) {
            long b = bs / s_count, s = bs % s_count;
            const float *cs = cosine + s * c, *sn = sine + s * c;
            for (long head = 0; head < turned; head++) {
                const float *in = qkv + bs * width + head * c, *weight = w + head * c;
                const float *grad = dqk + ((b * turned + head) * s_count + s) * c;
                float *out = dqkv + bs * width + head * c, *dweight = part + head * c;
                float r = reciprocal[bs * turned + head], inner = 0;
                for (long i = 0; i < half; i++) {
                    float first = grad[i] * cs[i] + grad[i + half] * sn[i + half];
                    float second = grad[i + half] * cs[i + half] + grad[i] * sn[i];
                    float hat_first = in[i] * r, hat_second = in[i + half] * r;
                    dweight[i] += first * hat_first;
                    dweight[i + half] += second * hat_second;
                    turned_back[i] = first * weight[i];
                    turned_back[i + half] = second * weight[i + half];
                    inner += turned_back[i] * hat_first + turned_back[i + half] * hat_second;
                }
                inner /= (float)c;
                for (long i = 0; i < c; i++) out[i] = (turned_back[i] - in[i] * r * inner) * r;
            }
            for (long head = 0; head < values; head++)
                memcpy(dqkv + bs * width + (turned + head) * c, dv + ((b * values + head) * s_count + s) * c,
                       sizeof(float) * c);
        }
    }
    for (int t = 0; t < threads; t++)
        for (long i = 0; i < size; i++) dw[i] += parts[(long)t * size + i];
    free(parts);
}
