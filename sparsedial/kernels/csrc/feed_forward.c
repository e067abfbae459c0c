/* SwiGLU and the sparse layer of experts. Twins: reference_swiglu, sparse.reference. */
#include "kernels.h"
#include "products.h"

/* ---- SwiGLU's activation over rows of H = 2F: gate half first ---- */

static void activate_row(const float *h, float *a, long f) {
    long i = 0;
    for (; i + LANES <= f; i += LANES) {
        vec gate = load(h + i);
        store(a + i, gate / (1.0f + vexp(-gate)) * load(h + f + i));
    }
    for (; i < f; i++) a[i] = h[i] / (1.0f + exp_of(-h[i])) * h[f + i];
}

/* From da to dh, which may be h itself, and a once more. */
static void activate_row_backward(const float *h, const float *da, float *dh, float *a, long f) {
    long i = 0;
    for (; i + LANES <= f; i += LANES) {
        vec gate = load(h + i), up = load(h + f + i), grad = load(da + i);
        vec sigmoid = 1.0f / (1.0f + vexp(-gate));
        vec silu = gate * sigmoid;
        store(a + i, silu * up);
        store(dh + i, grad * up * sigmoid * (1.0f + gate * (1.0f - sigmoid)));
        store(dh + f + i, grad * silu);
    }
    for (; i < f; i++) {
        float gate = h[i], up = h[f + i], grad = da[i];
        float sigmoid = 1.0f / (1.0f + exp_of(-gate)), silu = gate * sigmoid;
        a[i] = silu * up;
        dh[i] = grad * up * sigmoid * (1.0f + gate * (1.0f - sigmoid));
        dh[f + i] = grad * silu;
    }
}

void activate(const float *h, float *a, long rows, long f, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long row = 0; row < rows; row++) activate_row(h + row * 2 * f, a + row * f, f);
}

void activate_backward(float *h, const float *da, float *a, long rows, long f, int threads) {
#pragma omp parallel for num_threads(threads) if (threads > 1)
    for (long row = 0; row < rows; row++)
        activate_row_backward(h + row * 2 * f, da + row * f, h + row * 2 * f, a + row * f, f);
}

/* ---- the sparse layer ---- */

/* Rows grouped by expert: place p holds routed row order[p]; expert e's places end at ends[e]. A stable
 * counting sort. */
void sort_rows(const int64_t *chosen, long rows, long experts, int32_t *order, int32_t *place, int32_t *ends) {
    memset(ends, 0, sizeof(int32_t) * experts);
    for (long r = 0; r < rows; r++) ends[chosen[r]]++;
    int32_t total = 0;
    for (long e = 0; e < experts; e++) { int32_t count = ends[e]; ends[e] = total; total += count; }
    for (long r = 0; r < rows; r++) { int32_t at = ends[chosen[r]]++; order[at] = (int32_t)r; place[r] = at; }
}

void sparse_forward(const float *x, const float *w_in, const float *w_out, const int32_t *order, const int32_t *place,
                    const int32_t *ends, const float *gates, float *h, float *rows, float *y, long tokens, long top_k,
                    long experts, long d, long f, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        long most = 0;
        for (long e = 0; e < experts; e++) {
            long count = ends[e] - (e ? ends[e - 1] : 0);
            if (count > most) most = count;
        }
        float *xe = malloc(sizeof(float) * most * d), *a = malloc(sizeof(float) * most * f);
        long deep = d > f ? d : f;
        float *panel = malloc(sizeof(float) * deep * TILE_N);
#pragma omp for schedule(dynamic)
        for (long e = 0; e < experts; e++) {
            long first = e ? ends[e - 1] : 0, count = ends[e] - first;
            if (!count) continue;
            for (long i = 0; i < count; i++) memcpy(xe + i * d, x + order[first + i] / top_k * d, sizeof(float) * d);
            float *he = h + first * 2 * f;
            product(xe, d, 1, w_in + e * d * 2 * f, 2 * f, 1, he, 2 * f, count, 2 * f, d, 0, panel);
            for (long i = 0; i < count; i++) activate_row(he + i * 2 * f, a + i * f, f);
            product(a, f, 1, w_out + e * f * d, d, 1, rows + first * d, d, count, d, f, 0, panel);
        }
#pragma omp for schedule(static)
        for (long t = 0; t < tokens; t++) {
            float *out = y + t * d;
            for (long k = 0; k < top_k; k++) {
                const float *row = rows + (long)place[t * top_k + k] * d;
                float gate = gates[t * top_k + k];
                if (k) for (long i = 0; i < d; i++) out[i] += gate * row[i];
                else for (long i = 0; i < d; i++) out[i] = gate * row[i];
            }
        }
        free(xe); free(a); free(panel);
    }
}

/* `h` is overwritten by its gradient. */
void sparse_backward(const float *dy, const float *x, const float *w_in, const float *w_out, const int32_t *order,
                     const int32_t *place, const int32_t *ends, const float *gates, float *h, const float *rows,
                     float *dx, float *dw_in, float *dw_out, float *dgates, float *dx_rows, long tokens, long top_k,
                     long experts, long d, long f, int threads) {
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        long most = 0;
        for (long e = 0; e < experts; e++) {
            long count = ends[e] - (e ? ends[e - 1] : 0);
            if (count > most) most = count;
        }
        float *xe = malloc(sizeof(float) * most * d), *dye = malloc(sizeof(float) * most * d);
        float *a = malloc(sizeof(float) * most * f), *da = malloc(sizeof(float) * most * f);
        long deep = d > 2 * f ? d : 2 * f;
        if (most > deep) deep = most;
        float *panel = malloc(sizeof(float) * deep * TILE_N);
#pragma omp for schedule(dynamic)
        for (long e = 0; e < experts; e++) {
            long first = e ? ends[e - 1] : 0, count = ends[e] - first;
            float *dwi = dw_in + e * d * 2 * f, *dwo = dw_out + e * f * d;
            if (!count) {
                memset(dwi, 0, sizeof(float) * d * 2 * f);
                memset(dwo, 0, sizeof(float) * f * d);
                continue;
            }
            for (long i = 0; i < count; i++) {
                long row = order[first + i], token = row / top_k;
                float gate = gates[row];
                memcpy(xe + i * d, x + token * d, sizeof(float) * d);
                for (long j = 0; j < d; j++) dye[i * d + j] = gate * dy[token * d + j];
                dgates[row] = dot(dy + token * d, rows + (first + i) * d, d);
            }
            float *he = h + first * 2 * f;
            product(dye, d, 1, w_out + e * f * d, 1, d, da, f, count, f, d, 0, panel);
            for (long i = 0; i < count; i++)
                activate_row_backward(he + i * 2 * f, da + i * f, he + i * 2 * f, a + i * f, f);
            product(a, 1, f, dye, d, 1, dwo, d, f, d, count, 0, panel);
            product(xe, 1, d, he, 2 * f, 1, dwi, 2 * f, d, 2 * f, count, 0, panel);
            product(he, 2 * f, 1, w_in + e * d * 2 * f, 1, 2 * f, dx_rows + first * d, d, count, d, 2 * f, 0, panel);
        }
#pragma omp for schedule(static)
        for (long t = 0; t < tokens; t++) {
            float *out = dx + t * d;
            for (long k = 0; k < top_k; k++) {
                const float *row = dx_rows + (long)place[t * top_k + k] * d;
                if (k) for (long i = 0; i < d; i++) out[i] += row[i];
                else memcpy(out, row, sizeof(float) * d);
            }
        }
        free(xe); free(dye); free(a); free(da); free(panel);
    }
}
