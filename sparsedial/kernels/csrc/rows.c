/* Norms and heads of rows that are read without a gradient, where no layer's kernel has them. Twins: fused.rms_norm,
 * fused.by_head. R rows; B sequences, S positions, D d_model, H query heads, G key-value heads, C head_dim. */
#include "kernels.h"
#include "rows.h"

/* y [R, D] = norm(x) */
void norm_rows(const float *x, const float *w, float *y, long rows, long d, float eps, int threads) {
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long row = 0; row < rows; row++) norm_row(x + row * d, w, y + row * d, d, eps);
}

/* From qkv [B, S, (H + 2G)*C] the queries [B, H, S, C] and keys [B, G, S, C], normed unless their norms [C] are NULL, and
 * rotated, and the values [B, G, S, C]. Cosines and sines are [S, C], or [B, S, C] where `apart`. */
void split_heads(const float *qkv, const float *q_norm, const float *k_norm, const float *cosine, const float *sine,
                 float *q, float *k, float *v, long sequences, long s, long heads, long kv_heads, long c, int apart,
                 float eps, int threads) {
    long all = heads + 2 * kv_heads;
#pragma omp parallel for schedule(static) num_threads(threads) if (threads > 1)
    for (long t = 0; t < sequences * s; t++) {
        long b = t / s, position = t % s, angles = (apart ? t : position) * c;
        for (long n = 0; n < all; n++) {
            const float *in = qkv + (t * all + n) * c;
            long g = n < heads ? n : (n - heads) % kv_heads;
            long place = ((b * (n < heads ? heads : kv_heads) + g) * s + position) * c;
            if (n < heads) rotate_row(in, q_norm, cosine + angles, sine + angles, q + place, c, eps);
            else if (n < heads + kv_heads) rotate_row(in, k_norm, cosine + angles, sine + angles, k + place, c, eps);
            else memcpy(v + place, in, sizeof(float) * c);
        }
    }
}
