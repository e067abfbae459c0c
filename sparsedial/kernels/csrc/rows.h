/* Operations on one row: norms, and norms with rotary positions for queries and keys. Twins: rms_norm in
 * model/attention.py, rotate in model/rotary.py. */
#pragma once
#include "common.h"

/* y = x / rms(x) * w; returns 1 / rms(x). */
static inline float norm_row(const float *restrict x, const float *restrict w, float *restrict y, long d, float eps) {
    float r = 1.0f / sqrtf(dot(x, x, d) / (float)d + eps);
    for (long i = 0; i < d; i++) y[i] = x[i] * r * w[i];
    return r;
}

/* dx = the gradient of norm_row, plus `beside` unless it is NULL; adds to dw. */
static inline void norm_row_backward(const float *restrict dy, const float *restrict x, const float *restrict w,
                                     float r, const float *restrict beside, float *restrict dx, float *restrict dw,
                                     long d) {
    vec sums = splat(0.0f);
    long i = 0;
    for (; i + LANES <= d; i += LANES) {
        vec hat = load(x + i) * r, g = load(dy + i);
        store(dw + i, load(dw + i) + g * hat);
        sums += g * load(w + i) * hat;
    }
    float inner = sum_of(sums);
    for (; i < d; i++) {
        float hat = x[i] * r;
        dw[i] += dy[i] * hat;
        inner += dy[i] * w[i] * hat;
    }
    float pull = inner / (float)d * r;
    if (beside)
        for (i = 0; i < d; i++) dx[i] = beside[i] + (dy[i] * w[i] - x[i] * pull) * r;
    else
        for (i = 0; i < d; i++) dx[i] = (dy[i] * w[i] - x[i] * pull) * r;
}

/* A head of `c` channels: normed unless `w` is NULL, then rotated by its position's angles. The halves of cosines and
 * sines are equal, but the first half of the sines is negated. Returns 1 / rms. */
static inline float rotate_row(const float *restrict x, const float *restrict w, const float *restrict cosine,
                             const float *restrict sine, float *restrict y, long c, float eps) {
    long half = c / 2, i = 0;
    float r = w ? 1.0f / sqrtf(dot(x, x, c) / (float)c + eps) : 1.0f;
    for (; i + LANES <= half; i += LANES) {
        vec one = load(x + i) * r, two = load(x + i + half) * r;
        if (w) { one *= load(w + i); two *= load(w + i + half); }
        store(y + i, one * load(cosine + i) + two * load(sine + i));
        store(y + i + half, two * load(cosine + i + half) + one * load(sine + i + half));
    }
    for (; i < half; i++) {
        float one = x[i] * r, two = x[i + half] * r;
        if (w) { one *= w[i]; two *= w[i + half]; }
        y[i] = one * cosine[i] + two * sine[i];
        y[i + half] = two * cosine[i + half] + one * sine[i + half];
    }
    return r;
}

static inline void rotate_row_backward(const float *restrict dy, const float *restrict x, const float *restrict w,
                                     const float *restrict cosine, const float *restrict sine, float r,
                                     float *restrict dx, float *restrict dw, long c) {
    long half = c / 2, i = 0;
    vec sums = splat(0.0f);
    for (; i + LANES <= half; i += LANES) {
        vec g = load(dy + i), g_half = load(dy + i + half);
        vec one = g * load(cosine + i) + g_half * load(sine + i + half);
        vec two = g_half * load(cosine + i + half) + g * load(sine + i);
        if (w) {
            vec hat = load(x + i) * r, hat_half = load(x + i + half) * r;
            store(dw + i, load(dw + i) + one * hat);
            store(dw + i + half, load(dw + i + half) + two * hat_half);
            one *= load(w + i);
            two *= load(w + i + half);
            sums += one * hat + two * hat_half;
        }
        store(dx + i, one);
        store(dx + i + half, two);
    }
    float inner = sum_of(sums);
    for (; i < half; i++) {
        float one = dy[i] * cosine[i] + dy[i + half] * sine[i + half];
        float two = dy[i + half] * cosine[i + half] + dy[i] * sine[i];
        if (w) {
            float hat = x[i] * r, hat_half = x[i + half] * r;
            dw[i] += one * hat;
            dw[i + half] += two * hat_half;
            one *= w[i];
            two *= w[i + half];
            inner += one * hat + two * hat_half;
        }
        dx[i] = one;
        dx[i + half] = two;
    }
    if (!w) return;
    float pull = inner / (float)c * r;
    for (i = 0; i < c; i++) dx[i] = (dx[i] - x[i] * pull) * r;
}
