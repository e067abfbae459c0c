/* The attention layer: y = x + attention(norm(x)). Twin: GroupedAttention in model/attention.py.
 *
 * B sequences, S positions, T = B*S tokens, D d_model, H query heads, G of keys and values, N = H + G that are rotated,
 * C head_dim, Q = (H + 2G)*C. Weights [in, out]. Norms of queries and keys [C] or NULL; cosine and sine [S, C]. */
#include "attend.h"
#include "kernels.h"
#include "rows.h"

typedef struct {
    float *normed;     /* [T, D] */
    float *rms;        /* [T] reciprocals */
    float *qkv;        /* [T, Q] as projected */
    float *head_rms;   /* [T, N] reciprocals */
    float *qk;         /* [B, N, S, C] rotated, queries first */
    float *v;          /* [B, G, S, C] */
    float *mixed;      /* [T, H*C] attention's output */
    float *normaliser; /* [B, H, S] log of the sum of exponentials of each query's scores */
} saved_t;

static long lay(saved_t *s, float *base, long tokens, long d, long heads, long kv_heads, long c) {
    long used = 0, rotated = heads + kv_heads;
    s->normed = take(&base, &used, tokens * d);
    s->rms = take(&base, &used, tokens);
    s->qkv = take(&base, &used, tokens * (rotated + kv_heads) * c);
    s->head_rms = take(&base, &used, tokens * rotated);
    s->qk = take(&base, &used, tokens * rotated * c);
    s->v = take(&base, &used, tokens * kv_heads * c);
    s->mixed = take(&base, &used, tokens * heads * c);
    s->normaliser = take(&base, &used, tokens * heads);
    return used;
}

long attention_saved(long tokens, long d, long heads, long kv_heads, long c) {
    saved_t s;
    return lay(&s, NULL, tokens, d, heads, kv_heads, c);
}

/* Head g of keys and values of sequence b, with its query heads. */
static heads_t heads_of(const saved_t *saved, long bg, long heads, long kv_heads, long s, long c) {
    long b = bg / kv_heads, g = bg % kv_heads, rotated = heads + kv_heads, group = heads / kv_heads;
    return (heads_t){
        .group = group, .s = s, .c = c, .v = c, .scale = 1.0f / sqrtf((float)c), .wide = heads * c,
        .q = saved->qk + (b * rotated + g * group) * s * c,
        .keys = saved->qk + (b * rotated + heads + g) * s * c,
        .values = saved->v + bg * s * c,
        .mixed = saved->mixed + (b * s * heads + g * group) * c,
        .normaliser = saved->normaliser + (b * heads + g * group) * s,
    };
}

int attention_forward(const float *x, const float *norm, const float *w_qkv, const float *q_norm, const float *k_norm,
                      const float *cosine, const float *sine, const float *w_out, float *y, float *saved,
                      long sequences, long s, long d, long heads, long kv_heads, long c, float eps, int threads) {
    long tokens = sequences * s, rotated = heads + kv_heads, q = (rotated + kv_heads) * c;
    saved_t at;
    lay(&at, saved, tokens, d, heads, kv_heads, c);
    long piece = piece_rows(tokens, threads);
    float *in_panels = panels_for(d, q), *out_panels = panels_for(heads * c, d);
    float *each_use = attend_for_each_thread(threads, s, c, c);
    int there = ALL_THERE(in_panels, out_panels, each_use);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        shared_pack(w_qkv, q, 1, d, q, in_panels);
        shared_pack(w_out, d, 1, heads * c, d, out_panels);
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece) {
            long rows = at_most(piece, tokens - from);
            for (long t = from; t < from + rows; t++)
                at.rms[t] = norm_row(x + t * d, norm, at.normed + t * d, d, eps);
            by_panels(at.normed + from * d, d, 1, in_panels, d, at.qkv + from * q, q, rows, q, d, 0);
            for (long t = from; t < from + rows; t++) {
                long b = t / s, position = t % s;
                const float *in = at.qkv + t * q;
                for (long n = 0; n < rotated; n++)
                    at.head_rms[t * rotated + n] =
                        rotate_row(in + n * c, n < heads ? q_norm : k_norm, cosine + position * c, sine + position * c,
                                 at.qk + ((b * rotated + n) * s + position) * c, c, eps);
                for (long g = 0; g < kv_heads; g++)
                    memcpy(at.v + ((b * kv_heads + g) * s + position) * c, in + (rotated + g) * c, sizeof(float) * c);
            }
        }
        attend_scratch_t use = own_attend(each_use, s, c, c);
#pragma omp for schedule(static)
        for (long bg = 0; bg < sequences * kv_heads; bg++) {
            heads_t head = heads_of(&at, bg, heads, kv_heads, s, c);
            attend(&head, &use);
        }
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece) {
            long rows = at_most(piece, tokens - from);
            memcpy(y + from * d, x + from * d, sizeof(float) * rows * d);
            by_panels(at.mixed + from * heads * c, heads * c, 1, out_panels, heads * c, y + from * d, d, rows, d,
                      heads * c, 1);
        }
    }
    free(in_panels); free(out_panels); free(each_use);
    return DONE_IF(there);
}

int attention_backward(const float *dy, const float *x, const float *norm, const float *w_qkv, const float *q_norm,
                       const float *k_norm, const float *cosine, const float *sine, const float *w_out, float *saved,
                       float *dx, float *dnorm, float *dw_qkv, float *dq_norm, float *dk_norm, float *dw_out,
                       long sequences, long s, long d, long heads, long kv_heads, long c, int threads) {
    long tokens = sequences * s, rotated = heads + kv_heads, q = (rotated + kv_heads) * c, wide = heads * c;
    long wide_part = d + 2 * c; /* gradients of norms that each thread gathers */
    saved_t at;
    lay(&at, saved, tokens, d, heads, kv_heads, c);
    float *dmixed = floats(tokens * wide), *dqk = floats(tokens * rotated * c), *dv = floats(tokens * kv_heads * c);
    float *dqkv = floats(tokens * q), *parts = calloc((size_t)threads * wide_part, sizeof(float));
    float *in_across = panels_for(q, d), *out_across = panels_for(d, wide);
    long piece = piece_rows(tokens, threads);
    float *each_use = attend_for_each_thread(threads, s, c, c), *each_dnormed = for_each_thread(threads, piece * d);
    int there = ALL_THERE(dmixed, dqk, dv, dqkv, parts, in_across, out_across, each_use, each_dnormed);
    if (there)
#pragma omp parallel num_threads(threads) if (threads > 1)
    {
        shared_pack(w_qkv, 1, q, q, d, in_across);
        shared_pack(w_out, 1, d, d, wide, out_across);
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece)
            by_panels(dy + from * d, d, 1, out_across, d, dmixed + from * wide, wide, at_most(piece, tokens - from),
                      wide, d, 0);
        attend_scratch_t use = own_attend(each_use, s, c, c);
#pragma omp for schedule(static)
        for (long bg = 0; bg < sequences * kv_heads; bg++) {
            heads_t head = heads_of(&at, bg, heads, kv_heads, s, c);
            attend_backward(&head, dmixed + (head.mixed - at.mixed), dqk + (head.q - at.qk), dqk + (head.keys - at.qk),
                            dv + (head.values - at.v), &use);
        }
        float *dnormed = own_part(each_dnormed, piece * d), *own_parts = parts + (long)thread() * wide_part;
#pragma omp for schedule(static)
        for (long from = 0; from < tokens; from += piece) {
            long rows = at_most(piece, tokens - from);
            for (long t = from; t < from + rows; t++) {
                long b = t / s, position = t % s;
                float *out = dqkv + t * q;
                for (long n = 0; n < rotated; n++)
                    rotate_row_backward(dqk + ((b * rotated + n) * s + position) * c, at.qkv + t * q + n * c,
                                      n < heads ? q_norm : k_norm, cosine + position * c, sine + position * c,
                                      at.head_rms[t * rotated + n], out + n * c, own_parts + d + (n < heads ? 0 : c),
                                      c);
                for (long g = 0; g < kv_heads; g++)
                    memcpy(out + (rotated + g) * c, dv + ((b * kv_heads + g) * s + position) * c, sizeof(float) * c);
            }
            by_panels(dqkv + from * q, q, 1, in_across, q, dnormed, d, rows, d, q, 0);
            for (long i = 0; i < rows; i++) {
                long t = from + i;
                norm_row_backward(dnormed + i * d, x + t * d, norm, at.rms[t], dy + t * d, dx + t * d, own_parts, d);
            }
        }
        shared_product(at.normed, 1, d, dqkv, q, 1, dw_qkv, d, q, tokens, threads);
        shared_product(at.mixed, 1, wide, dy, d, 1, dw_out, wide, d, tokens, threads);
    }
    if (there) gather_columns(dnorm, parts, threads, wide_part, d);
    if (there && q_norm) {
        gather_columns(dq_norm, parts + d, threads, wide_part, c);
        gather_columns(dk_norm, parts + d + c, threads, wide_part, c);
    }
    free(dmixed); free(dqk); free(dv); free(dqkv); free(parts); free(in_across); free(out_across);
    free(each_use); free(each_dnormed);
    return DONE_IF(there);
}
